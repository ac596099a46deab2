//! One keyed request, as the adapter sees it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tracing::Span;

use super::{stage::Stage, state::Exchange};
use crate::{
    catch_unwind::{Panicked, catch_unwind},
    engine::{
        core::detach_handle::Detached,
        detach::{Detachable, Leave},
        handler::{BoxError, Handler},
        reply::{Refused, Reply},
    },
    observe,
};

/// The answer to a request, on its way.
pub(crate) enum Served<T: Send + 'static> {
    /// Nothing has begun yet.
    Arrived(Option<Box<dyn FnOnce() -> Self + Send>>),
    /// Nothing waited. `None` once it was given.
    Ready(Option<T>),
    /// The handler is at work, or something else waits: one allocation, whatever it is.
    Pending(Detachable<T>),
}

/// Polls a request on, in its span.
struct Serve<H: Handler> {
    span: Span,
    stage: Stage<H>,
    /// For a refusal, if an execution around this one serves the same request.
    refused: Option<Refused>,
}

impl<B: Send + 'static> Served<Reply<B>> {
    /// Serves a request as far as nothing waits: up to its answer, or to the first poll of its handler. Called where the
    /// future is polled next: what begins here has a lease, and a runtime around it.
    pub(crate) fn begin<R, H>(exchange: Exchange, request: Request<R>, handler: H) -> Self
    where
        R: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
        H: Handler<Body = B>,
    {
        let span = observe::span(exchange.plan.label());
        let refused = Refused::for_request(&request, H::ROUTING);
        let runtime = exchange.core.runtime.clone();
        let stage = span.in_scope(|| {
            let (core, plan) = (Arc::clone(&exchange.core), Arc::clone(&exchange.plan));
            let begun = catch_unwind(|| exchange.begin(request, handler));
            begun.unwrap_or_else(|Panicked| Stage::panicked(&core, &plan))
        });
        match stage {
            Stage::Answered(reply, nothing) => Self::Ready(Some(marked(reply, nothing, refused))),
            stage => {
                let serve = Serve {
                    span,
                    stage,
                    refused,
                };
                Self::Pending(Detachable::new(serve, runtime))
            }
        }
    }
}

impl<T: Send + 'static> Served<T> {
    /// What begins when it is polled: a service may be called long before that, elsewhere, or for nothing.
    pub(crate) fn when_polled(begin: impl FnOnce() -> Self + Send + 'static) -> Self {
        Self::Arrived(Some(Box::new(begin)))
    }
}

impl<T: Send + 'static> Future for Served<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if let Self::Arrived(begin) = &mut *self
            && let Some(begin) = begin.take()
        {
            *self = begin();
        }
        match &mut *self {
            Self::Ready(reply) => match reply.take() {
                Some(reply) => Poll::Ready(reply),
                None => panic!("an answered request was polled again"),
            },
            Self::Pending(future) => Pin::new(future).poll(context),
            Self::Arrived(_) => panic!("a request that panicked was polled again"),
        }
    }
}

/// Nothing in it is pinned.
impl<T: Send + 'static> Unpin for Served<T> {}
impl<H: Handler> Unpin for Serve<H> {}

impl<H: Handler> Future for Serve<H> {
    type Output = Reply<H::Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            span,
            stage,
            refused,
        } = &mut *self;
        let _entered = span.enter();
        let (reply, nothing) = ready!(stage.poll(context));
        Poll::Ready(marked(reply, nothing, refused.take()))
    }
}

/// The reply, marked for the engine of an execution around this one where nothing was executed.
fn marked<B>(mut reply: Reply<B>, nothing_executed: bool, refused: Option<Refused>) -> Reply<B> {
    if let Some(refused) = refused.filter(|_| nothing_executed) {
        refused.mark(&mut reply);
    }
    reply
}

impl<H: Handler> Drop for Serve<H> {
    fn drop(&mut self) {
        // What is dropped may log, and may begin to give a claim back.
        let _entered = self.span.enter();
        self.stage = Stage::Gone;
    }
}

impl<H: Handler> Leave for Serve<H> {
    fn leave(&mut self) -> Option<Detached> {
        self.stage.leave()
    }
}
