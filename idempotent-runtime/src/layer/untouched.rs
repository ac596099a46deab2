//! Which answers are not a handler's: the router's own, and the refusals of an engine inside. No handler ran.
//!
//! A layer on a router wraps what axum answers with where no handler matches, as it wraps handlers, and sees a response
//! only. What nobody but the router would do is recognised, and what an engine inside has marked; everything else is an
//! answer of the application's, and stored.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Extensions, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::ROUTING;
use crate::{
    body::Body,
    engine::{Refused, Retention},
    execution::Execution,
};

/// A request of which it is known whether anybody looked at it.
pub(super) struct Untouched {
    /// `None` if the engine put none into the request.
    execution: Option<Execution>,
    routed: Through,
}

/// What a router did with the request before the layer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Through {
    /// It did not come through a router.
    No,
    NoRouteMatched,
    Matched,
}

impl Untouched {
    /// From now on, whoever looks at the request's execution or its body is noticed.
    pub(super) fn watch(request: &Request<Bytes>) -> Self {
        let extensions = request.extensions();
        Self {
            execution: extensions.get().map(Execution::watch),
            routed: Through::of(extensions),
        }
    }

    /// The body of the request.
    pub(super) fn body(&self, bytes: Bytes) -> Body {
        match &self.execution {
            Some(execution) => Body::new(Watched {
                bytes: (!bytes.is_empty()).then_some(bytes),
                execution: execution.again(),
            }),
            None => Body::from(bytes),
        }
    }

    /// Whether an engine inside refused this very request before anything was executed for it. What the application decided
    /// about the response comes first.
    pub(super) fn is_refused_inside<R>(&self, response: &Response<R>) -> bool {
        let execution = self.execution.as_ref();
        execution.is_some_and(|execution| Refused::is_in(response, execution))
            && response.extensions().get::<Retention>().is_none()
    }

    /// Whether nobody looked at the request's body or its execution.
    pub(super) fn is_unread(&self) -> bool {
        let execution = self.execution.as_ref();
        execution.is_some_and(|execution| !execution.is_touched())
    }

    /// Whether this answer, which was given at once, is the router's own: a 404 because no route matched, or a 405
    /// because the route has no such method.
    ///
    /// axum adds the `Allow` header of its 405 outside of the layer. A handler's own 405 has one (RFC 9110, section
    /// 15.5.6), and so is not taken for the router's.
    pub(super) fn is_routers_own<R: http_body::Body>(&self, response: &Response<R>) -> bool {
        let possible = match response.status() {
            StatusCode::NOT_FOUND => self.routed == Through::NoRouteMatched,
            StatusCode::METHOD_NOT_ALLOWED => self.routed != Through::No,
            _ => false,
        };
        possible
            && self.is_unread()
            && response.headers().is_empty()
            && response.extensions().is_empty()
            && response.body().size_hint().exact() == Some(0)
    }
}

impl Through {
    fn of(extensions: &Extensions) -> Self {
        let routed = ROUTING.of(extensions);
        match (routed.original, routed.template) {
            (None, _) => Self::No,
            (Some(_), None) => Self::NoRouteMatched,
            (Some(_), Some(_)) => Self::Matched,
        }
    }
}

/// A body that notices when it is read.
struct Watched {
    bytes: Option<Bytes>,
    execution: Execution,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.execution.touch();
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
