//! The wrapped service as the engine's handler.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use tower_service::Service;

use super::{
    ROUTING, failure::Failure, protocol::Protocol, recovery::RecoveryFn, untouched::Untouched,
};
use crate::{
    body::Body,
    caller::{Authentication, CallerFn},
    engine::{BoxError, BoxFuture, Handler, HandlerResult, Idempotency, NotReady, Recovering},
    execution::Crash,
    policy::RecoverFn,
    route::Routing,
};

/// The wrapped service, called at most once.
pub(super) struct WrappedService<S, E> {
    pub(super) service: S,
    pub(super) caller: Option<CallerFn>,
    pub(super) recovery: Option<RecoveryFn>,
    pub(super) failure: Failure<E>,
    pub(super) engine: Idempotency,
    pub(super) protocol: Protocol,
    /// How many bytes of a response are stored at most.
    pub(super) max_response: usize,
}

impl<S, R> Handler for WrappedService<S, S::Error>
where
    S: Service<Request<Body>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = Body;
    type Future = BoxFuture<HandlerResult<Body>>;

    const ROUTING: &'static Routing = &ROUTING;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), NotReady>> {
        let ready = ready!(self.service.poll_ready(context));
        Poll::Ready(ready.map_err(|error| {
            self.failure.set(error);
            NotReady::Failed
        }))
    }

    fn has_caller(&self) -> bool {
        self.caller.is_some()
    }

    fn authenticate(&self, head: Parts) -> Authentication {
        match &self.caller {
            Some(caller) => caller.start(head),
            None => Authentication::None(head),
        }
    }

    fn recover(&mut self, recover: RecoverFn, crash: Crash) -> Recovering<'_> {
        match &self.recovery {
            Some(own) => own.start(crash),
            None => recover(crash),
        }
    }

    fn call(mut self, request: Request<Bytes>) -> Self::Future {
        let untouched = Untouched::watch(&request);
        let request = request.map(|body| untouched.body(body));
        let called = self.service.call(request);
        let Self {
            failure,
            engine,
            protocol,
            max_response,
            ..
        } = self;
        Box::pin(async move {
            let mut called = pin!(called);
            let mut at_once = true;
            let answered = poll_fn(|context| {
                let answered = called.as_mut().poll(context);
                at_once &= answered.is_ready();
                answered
            });
            match answered.await {
                Ok(response) => {
                    let response = response.map(Body::new);
                    let rejected = (at_once && untouched.is_routers_own(&response))
                        || untouched.is_refused_inside(&response)
                        || (protocol.is_unimplemented(&response) && untouched.is_unread());
                    let response = protocol.into_engine(response, max_response).await;
                    if rejected {
                        HandlerResult::Rejected(response)
                    } else {
                        HandlerResult::Returned(response)
                    }
                }
                Err(error) => {
                    let not_started = engine.comes_before_any_work(&error, at_once);
                    failure.set(error);
                    if not_started {
                        HandlerResult::NotStarted
                    } else {
                        HandlerResult::Failed
                    }
                }
            }
        })
    }
}
