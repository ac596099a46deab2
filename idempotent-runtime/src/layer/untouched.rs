//! Which answers are the router's own: no handler ran.
//!
//! A layer on a router wraps what axum answers with where no handler matches, as it wraps handlers, and sees a response
//! only. What nobody but the router would do is recognised; everything else is an answer of the application's, and stored.

use bytes::Bytes;
use http::{Request, Response};

use crate::body::Body;

#[cfg(feature = "axum")]
pub(super) use by_axum::Untouched;
#[cfg(not(feature = "axum"))]
pub(super) use without::Untouched;

#[cfg(feature = "axum")]
mod by_axum {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use axum::extract::{MatchedPath, OriginalUri};
    use http::StatusCode;
    use http_body::{Frame, SizeHint};

    use super::{Body, Bytes, Request, Response};
    use crate::execution::Execution;

    /// A request of which it is known whether anybody looked at it.
    pub(in crate::layer) struct Untouched {
        /// `None` if the request did not come through a router.
        execution: Option<Execution>,
        matched: bool,
    }

    impl Untouched {
        /// From now on, whoever looks at the request's execution or its body is noticed.
        pub(in crate::layer) fn watch(request: &Request<Bytes>) -> Self {
            let extensions = request.extensions();
            let routed = extensions.get::<OriginalUri>().is_some();
            let execution = extensions.get::<Execution>().filter(|_| routed);
            Self {
                execution: execution.map(Execution::watch),
                matched: extensions.get::<MatchedPath>().is_some(),
            }
        }

        /// The body of the request.
        pub(in crate::layer) fn body(&self, bytes: Bytes) -> Body {
            match &self.execution {
                Some(execution) => Body::new(Watched {
                    bytes: (!bytes.is_empty()).then_some(bytes),
                    execution: execution.again(),
                }),
                None => Body::from(bytes),
            }
        }

        /// Whether this answer, which was given at once, is the router's own: a 404 because no route matched, or a 405
        /// because the route has no such method.
        ///
        /// axum adds the `Allow` header of its 405 outside of the layer. A handler's own 405 has one (RFC 9110, section
        /// 15.5.6), and so is not taken for the router's.
        pub(in crate::layer) fn is_routers_own<R: http_body::Body>(
            &self,
            response: &Response<R>,
        ) -> bool {
            let possible = match response.status() {
                StatusCode::NOT_FOUND => !self.matched,
                StatusCode::METHOD_NOT_ALLOWED => true,
                _ => false,
            };
            possible
                && self
                    .execution
                    .as_ref()
                    .is_some_and(|execution| !execution.is_touched())
                && response.headers().is_empty()
                && response.extensions().is_empty()
                && response.body().size_hint().exact() == Some(0)
        }
    }

    /// A body that notices when it is read.
    struct Watched {
        bytes: Option<Bytes>,
        execution: Execution,
    }

    impl http_body::Body for Watched {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
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
}

/// Without the feature `axum` no router is known, and every answer is stored.
#[cfg(not(feature = "axum"))]
mod without {
    use super::{Body, Bytes, Request, Response};

    pub(in crate::layer) struct Untouched;

    impl Untouched {
        pub(in crate::layer) fn watch(_: &Request<Bytes>) -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::layer) fn body(&self, bytes: Bytes) -> Body {
            Body::from(bytes)
        }

        #[expect(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::layer) fn is_routers_own<R>(&self, _: &Response<R>) -> bool {
            false
        }
    }
}
