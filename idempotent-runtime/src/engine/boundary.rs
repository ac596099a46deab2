//! Where an adapter meets the engine: a request comes in, work may be done, a response goes out.
//!
//! Nothing here knows a web framework. An adapter brings the request, the [`Route`] it matched and the
//! [`Work`] to do if the engine says "execute".

use std::{borrow::Cow, fmt, future::Future, pin::Pin};

use bytes::Bytes;
use http::{Request, Response, Uri};

/// A boxed error, as `http-body` implementations carry it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A boxed future that may be handed to another task.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where a request arrived, before any router rewrote its URI.
pub(crate) struct Route {
    /// The route's identity in the scope: `POST /orders/{id}`, or the policy's name.
    pub(crate) endpoint: Cow<'static, str>,
    /// What metrics and spans call it instead, where it names what clients choose: labels are
    /// bounded in number.
    pub(crate) label: Option<Cow<'static, str>>,
    /// The URI with the full original path and query.
    pub(crate) uri: Uri,
}

impl Route {
    /// What metrics and spans call it.
    pub(crate) fn label(&self) -> &str {
        self.label.as_ref().unwrap_or(&self.endpoint)
    }
}

/// The handler behind one request, started at most once.
pub(crate) trait Work: Send + 'static {
    /// The body of its response.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// The handler at work.
    type Running: Future<Output = Ran<Self::Body>> + Send + Unpin + 'static;

    /// Starts the handler on the request, whose body has been read.
    fn start(self, request: Request<Bytes>) -> Self::Running;
}

/// How the work ended.
pub(crate) enum Ran<B> {
    /// The handler ran and answered.
    Answered(Response<B>),
    /// An extractor refused the request before the handler began: nothing was executed.
    #[cfg_attr(
        not(feature = "axum"),
        expect(dead_code, reason = "the layer cannot tell")
    )]
    Rejected(Response<B>),
    /// The service failed without a response, so that nobody knows what it did. Its error travels past the
    /// engine; a web framework whose handlers cannot fail never says this.
    Failed,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("label", &self.label())
            .finish_non_exhaustive()
    }
}
