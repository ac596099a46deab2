//! The client's end of a stream that is recorded while it passes. The engine's end is `run/recorder.rs`.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

use crate::engine::handler::BoxError;

/// A frame of a stream, or the error that ended it.
pub(crate) type FrameResult = Result<Frame<Bytes>, BoxError>;

/// What the client reads.
pub(crate) struct Recording {
    frames: mpsc::Receiver<FrameResult>,
}

impl Recording {
    /// A stream, and where its frames are sent. One frame is under way at a time: the client's pace is the stream's.
    pub(crate) fn channel() -> (mpsc::Sender<FrameResult>, Self) {
        let (client, frames) = mpsc::channel(1);
        (client, Self { frames })
    }

    /// A body that is already there, with trailers that no record can keep.
    pub(crate) fn of(body: Bytes, trailers: HeaderMap) -> Self {
        let (client, frames) = mpsc::channel(2);
        for frame in [Frame::data(body), Frame::trailers(trailers)] {
            // Invariant: the channel is new and has room for both.
            client.try_send(Ok(frame)).expect("there is room");
        }
        Self { frames }
    }
}

impl Body for Recording {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<FrameResult>> {
        self.frames.poll_recv(context)
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").finish_non_exhaustive()
    }
}
