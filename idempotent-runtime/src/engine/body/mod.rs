//! The bodies of requests and responses that go through the engine.

pub(super) mod collect;
pub(super) mod recording;

use std::fmt;

use bytes::Bytes;

use crate::caller::RejectionBody;
use recording::Recording;

/// The body of a response.
#[must_use]
pub(crate) enum ResponseBody<B> {
    /// Stored, replayed, or the engine's own.
    Full(Bytes),
    /// Passed through.
    Live(B),
    /// A stream that is recorded while it passes.
    Recording(Recording),
    /// Of the extractor that finds the caller.
    Rejection(RejectionBody),
}

impl<B> ResponseBody<B> {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::Full(bytes)
    }

    pub(crate) fn live(body: B) -> Self {
        Self::Live(body)
    }

    pub(crate) fn recording(recording: Recording) -> Self {
        Self::Recording(recording)
    }

    pub(crate) fn rejection(body: RejectionBody) -> Self {
        Self::Rejection(body)
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "ResponseBody::Full",
            Self::Live(_) => "ResponseBody::Live",
            Self::Recording(_) => "ResponseBody::Recording",
            Self::Rejection(_) => "ResponseBody::Rejection",
        })
    }
}
