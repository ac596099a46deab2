//! The body of a response that went through the engine.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{boundary::BoxError, stream::Recording};

/// A stored or replayed body, a body passed through, or a stream that is recorded while it passes.
#[must_use]
pub struct ResponseBody<B>(Kind<B>);

enum Kind<B> {
    Full(Option<Bytes>),
    Live(B),
    Recording(Recording),
}

impl<B> ResponseBody<B> {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self(Kind::Full((!bytes.is_empty()).then_some(bytes)))
    }

    pub(crate) fn live(body: B) -> Self {
        Self(Kind::Live(body))
    }

    pub(crate) fn recording(recording: Recording) -> Self {
        Self(Kind::Recording(recording))
    }

    /// The parts an adapter may know a shorter way for.
    #[cfg(feature = "axum")]
    pub(crate) fn simplify(self) -> Simplified<B> {
        match self.0 {
            Kind::Full(bytes) => Simplified::Full(bytes.unwrap_or_default()),
            Kind::Live(body) => Simplified::Live(body),
            Kind::Recording(recording) => Simplified::Recording(recording),
        }
    }
}

/// What a [`ResponseBody`] is.
#[cfg(feature = "axum")]
pub(crate) enum Simplified<B> {
    Full(Bytes),
    Live(B),
    Recording(Recording),
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Live(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Kind::Recording(recording) => Pin::new(recording).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Live(body) => body.is_end_stream(),
            Kind::Recording(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Live(body) => body.size_hint(),
            Kind::Recording(_) => SizeHint::default(),
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Full(_) => "ResponseBody::Full",
            Kind::Live(_) => "ResponseBody::Live",
            Kind::Recording(_) => "ResponseBody::Recording",
        })
    }
}
