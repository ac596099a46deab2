//! Where an adapter meets the engine.
//!
//! Nothing here knows a web framework. An adapter brings the request, the [`Plan`](super::Plan) of its endpoint, and the
//! [`Handler`] to call if the engine decides to execute.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};

pub(crate) use crate::boxes::{BoxError, BoxFuture};
use crate::{
    caller::Authentication,
    catch_unwind::catch_unwind,
    execution::{Crash, Recovery},
    policy::RecoverFn,
    route::Routing,
};

/// A recovery function at work. It may borrow its handler.
pub(crate) type Recovering<'a> = Pin<Box<dyn Future<Output = Recovery> + Send + 'a>>;

/// The handler behind one request, called at most once, and only once it was ready.
pub(crate) trait Handler: Send + 'static {
    /// The body of its response.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// What the call returns.
    type Future: Future<Output = HandlerResult<Self::Body>> + Send + Unpin + 'static;

    /// What is known of the router around the adapter.
    const ROUTING: &'static Routing;

    /// Starts to find out who calls, if the route names a caller. It reads nothing but the head.
    fn authenticate(&self, head: Parts) -> Authentication;

    /// Whether the route names a caller.
    fn has_caller(&self) -> bool;

    /// Whether it can be called now. Most handlers always can.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotReady>> {
        Poll::Ready(Ok(()))
    }

    /// Asks what became of a crashed execution: the policy's function `recover`, unless the handler has one of its own. It
    /// may be called and executed afterwards.
    fn recover(&mut self, recover: RecoverFn, crash: Crash) -> Recovering<'_> {
        recover(crash)
    }

    /// Calls it with the request, whose body has been read.
    fn call(self, request: Request<Bytes>) -> Self::Future;
}

/// Why a handler can never be called. Nothing was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// The service failed. The adapter passes its error on beside the engine.
    Failed,
    /// It panicked.
    Panicked,
}

/// Waits until the handler can be called. `pending` is called each time that it cannot yet.
pub(crate) async fn ready<H: Handler>(
    handler: &mut H,
    mut pending: impl FnMut(),
) -> Result<(), NotReady> {
    poll_fn(|context| {
        let polled = catch_unwind(|| handler.poll_ready(context));
        let polled = polled.unwrap_or(Poll::Ready(Err(NotReady::Panicked)));
        if polled.is_pending() {
            pending();
        }
        polled
    })
    .await
}

/// How a call ended.
pub(crate) enum HandlerResult<B> {
    /// The handler ran and returned this response.
    Returned(Response<B>),
    /// An extractor refused the request before the handler began, or no handler matched: nothing was executed.
    Rejected(Response<B>),
    /// An extractor panicked before the handler began: nothing was executed.
    #[cfg_attr(
        not(feature = "handlers"),
        expect(dead_code, reason = "the layer cannot know it")
    )]
    ExtractorPanicked,
    /// The service failed before any work: nothing was executed. The adapter passes its error on beside the engine.
    NotStarted,
    /// The service failed without a response, so what it did is unknown. The adapter passes its error on beside the
    /// engine. A web framework whose handlers cannot fail never returns this.
    Failed,
}
