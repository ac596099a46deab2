//! Request and response bodies that the tests control.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;

type FrameResult = io::Result<Frame<Bytes>>;

/// The other end of a body made by [`frames`]. Dropping it ends the body.
pub(crate) type Frames = mpsc::UnboundedSender<FrameResult>;

/// A body of unknown length that yields the frames it is sent.
pub(crate) fn frames() -> (Frames, Body) {
    let (frames, body) = mpsc::unbounded_channel();
    (frames, Body::new(Channel(body)))
}

/// A body of unknown length with these pieces, which are all available at once.
pub(crate) fn stream<const N: usize>(pieces: [&'static str; N]) -> Body {
    let (sender, body) = frames();
    for piece in pieces {
        sender
            .send(Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .unwrap();
    }
    body
}

/// A body that never ends and yields a piece at every other poll, so that other tasks run in between.
pub(crate) fn endless(piece: &'static [u8]) -> Body {
    Body::new(Endless(piece, false))
}

struct Channel(mpsc::UnboundedReceiver<FrameResult>);

impl HttpBody for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<FrameResult>> {
        self.0.poll_recv(context)
    }
}

struct Endless(&'static [u8], bool);

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.1 = !self.1;
        if self.1 {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.0)))));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
