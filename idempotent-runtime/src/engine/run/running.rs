//! A handler at work.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::Body;

use super::state::{Run, RunResult};
use crate::{
    catch_unwind::{Catching, Panicked, catch_unwind, catching_unpin},
    engine::{
        core::keeper::keep,
        handler::{BoxError, Handler, HandlerResult},
    },
    execution::Execution,
    observe::Stopwatch,
};

/// An execution whose handler was called.
pub(crate) struct Running<F> {
    pub(crate) run: Run,
    pub(crate) since: Stopwatch,
    handler: Result<Catching<F>, Panicked>,
}

impl Run {
    /// Calls the handler. The lease is kept from before the call: the handler may block its thread from its first
    /// instruction on.
    pub(crate) fn call<H: Handler>(
        self,
        handler: H,
        mut request: Request<Bytes>,
    ) -> Running<H::Future> {
        let execution = Execution::new(self.lease.clone());
        request.extensions_mut().insert(execution);
        keep(&self.core, &self.lease);
        let since = Stopwatch::start();
        let called = catch_unwind(|| handler.call(request));
        Running {
            run: self,
            since,
            handler: called.map(catching_unpin),
        }
    }
}

impl<F, B> Running<F>
where
    F: Future<Output = HandlerResult<B>> + Send + Unpin,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    /// How the handler ended, if it has.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<HandlerResult<B>, Panicked>> {
        match &mut self.handler {
            Ok(handler) => std::pin::Pin::new(handler).poll(context),
            Err(Panicked) => Poll::Ready(Err(Panicked)),
        }
    }

    /// Lets the handler run to its end, and answers with its outcome.
    pub(crate) async fn finish(mut self) -> RunResult<B> {
        let ended = poll_fn(|context| self.poll(context)).await;
        let Self { mut run, since, .. } = self;
        let ending = run.ending(ended, since);
        Box::new(run).end(ending).await
    }
}
