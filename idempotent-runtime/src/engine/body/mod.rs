//! The bodies of requests and responses that go through the engine.

pub(super) mod collect;
pub(super) mod recording;

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::handler::BoxError;
use crate::caller::RejectionBody;
use recording::Recording;

/// The body of a response: stored or replayed, passed through, or a stream that is recorded while it passes.
#[must_use]
pub struct ResponseBody<B>(Kind<B>);

enum Kind<B> {
    Full(Option<Bytes>),
    Live(B),
    Recording(Recording),
    Rejection(RejectionBody),
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

    pub(crate) fn rejection(body: RejectionBody) -> Self {
        Self(Kind::Rejection(body))
    }

    /// What the body is, for an adapter that has a shorter way to send some of them.
    #[cfg(feature = "axum")]
    pub(crate) fn into_kind(self) -> BodyKind<B> {
        match self.0 {
            Kind::Full(bytes) => BodyKind::Full(bytes.unwrap_or_default()),
            Kind::Live(body) => BodyKind::Live(body),
            Kind::Recording(recording) => BodyKind::Recording(recording),
            Kind::Rejection(body) => BodyKind::Rejection(body),
        }
    }
}

/// What a [`ResponseBody`] is.
#[cfg(feature = "axum")]
pub(crate) enum BodyKind<B> {
    Full(Bytes),
    Live(B),
    Recording(Recording),
    Rejection(RejectionBody),
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
            Kind::Rejection(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Live(body) => body.is_end_stream(),
            Kind::Recording(_) => false,
            Kind::Rejection(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Live(body) => body.size_hint(),
            Kind::Recording(_) => SizeHint::default(),
            Kind::Rejection(body) => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Full(_) => "ResponseBody::Full",
            Kind::Live(_) => "ResponseBody::Live",
            Kind::Recording(_) => "ResponseBody::Recording",
            Kind::Rejection(_) => "ResponseBody::Rejection",
        })
    }
}
