//! The service that the layer makes, and its future.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    IdempotencyLayer, ROUTING, failure::Failure, protocol::Protocol,
    wrapped_service::WrappedService,
};
use crate::{
    body::{Body, full},
    caller::{Authenticated, Authentication, CallerFn},
    engine::{BoxError, BoxFuture, Coverage, Idempotency, Refused, Reply, Served},
};

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService {
            layer: self.clone(),
            inner,
        }
    }
}

/// The service that [`IdempotencyLayer`] makes.
#[derive(Clone, Debug)]
pub struct IdempotencyService<S> {
    layer: IdempotencyLayer,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S>;

    /// Always ready: only a request that executes needs the wrapped service, which is waited for then.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let coverage = self.layer.coverage(&mut request);
        self.layer.offer_engine(&mut request);
        let found = match coverage {
            Coverage::Protected(found) => found,
            Coverage::Claimed => return self.authenticate_and_pass(request.map(Body::new)),
            Coverage::Unprotected => return self.pass(request.map(Body::new)),
        };
        let Some(protocol) = Protocol::of(&request, &self.layer.grpc_methods) else {
            return self.pass_grpc(request.map(Body::new));
        };
        let IdempotencyLayer {
            engine,
            policy,
            plans,
            ..
        } = &self.layer;
        let template = protocol.template(&request);
        let template = template.or_else(|| ROUTING.of(request.extensions()).template);
        let plan = engine.plan_in(plans, policy, request.method(), template);
        let failure = Failure::default();
        let handler = WrappedService {
            service: self.inner.clone(),
            caller: self.layer.caller.clone(),
            recovery: self.layer.recovery.clone(),
            failure: failure.clone(),
            engine: engine.clone(),
            protocol,
            max_response: plan.settings.max_response,
        };
        let request = request.map(Body::new);
        let engine = engine.clone();
        let future = Served::when_polled(move || engine.run(plan, found, request, handler));
        ResponseFuture {
            kind: Kind::Covered {
                future,
                failure,
                protocol,
            },
        }
    }
}

impl<S> IdempotencyService<S>
where
    S: Service<Request<Body>> + Clone,
{
    /// Sends a request that an execution around this layer has claimed to the wrapped service, if this layer's own caller
    /// step lets it in: what is inside may rely on that.
    fn authenticate_and_pass(&mut self, request: Request<Body>) -> ResponseFuture<S> {
        let IdempotencyLayer { engine, policy, .. } = &self.layer;
        let own = self.layer.caller.as_ref();
        let caller = own.or_else(|| engine.caller_inside(&request)).cloned();
        if caller.is_some() {
            engine.warn_of_a_caller_inside(policy, &request, &ROUTING);
        }
        self.pass_after(caller, request)
    }

    /// Sends a gRPC call to the wrapped service, if the caller step lets it in: what is inside may rely on that.
    fn pass_grpc(&mut self, request: Request<Body>) -> ResponseFuture<S> {
        let engine = &self.layer.engine;
        engine.warn_of_grpc();
        let own = self.layer.caller.as_ref();
        let caller = own.or(engine.caller()).cloned();
        self.pass_after(caller, request)
    }

    /// Sends a request that is not covered to the wrapped service once this caller step has let it in.
    fn pass_after(
        &mut self,
        caller: Option<CallerFn>,
        request: Request<Body>,
    ) -> ResponseFuture<S> {
        let Some(caller) = caller else {
            return self.pass(request);
        };
        let refused = Refused::for_request(&request, &ROUTING);
        let (head, body) = request.into_parts();
        let kind = match caller.start(head) {
            Authentication::None(head) => return self.pass(Request::from_parts(head, body)),
            Authentication::Pending(found) => Kind::Authenticating {
                found,
                body: Some(body),
                service: self.clone(),
                refused,
            },
        };
        ResponseFuture { kind }
    }

    /// Sends a request that is not covered to the wrapped service, or lets it wait until that one is ready.
    fn pass(&mut self, request: Request<Body>) -> ResponseFuture<S> {
        let style = self.layer.engine.with_own_style();
        // Most services are ready at once, and need no clone. One that is not is asked again, with a waker, below.
        let step = match self
            .inner
            .poll_ready(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Ok(())) => Step::Calling {
                future: self.inner.call(request),
            },
            Poll::Ready(Err(error)) => Step::Failed { error: Some(error) },
            Poll::Pending => {
                // What was asked goes with the request: it may stand in a queue already, which a clone does not.
                let clone = self.inner.clone();
                Step::Waiting {
                    service: mem::replace(&mut self.inner, clone),
                    request: Some(request),
                }
            }
        };
        ResponseFuture {
            kind: Kind::Passed { step, style },
        }
    }
}

pin_project! {
    /// The future of [`IdempotencyService`].
    pub struct ResponseFuture<S: Service<Request<Body>>> {
        #[pin]
        kind: Kind<S>,
    }
}

pin_project! {
    #[project = ProjectedKind]
    enum Kind<S: Service<Request<Body>>> {
        Authenticating {
            found: BoxFuture<Authenticated>,
            body: Option<Body>,
            service: IdempotencyService<S>,
            refused: Option<Refused>,
        },
        Passed { #[pin] step: Step<S>, style: Option<Idempotency> },
        Covered { future: Served<Reply<Body>>, failure: Failure<S::Error>, protocol: Protocol },
    }
}

pin_project! {
    /// A request that is not covered, on its way through the wrapped service.
    #[project = ProjectedStep]
    enum Step<S: Service<Request<Body>>> {
        Waiting { service: S, request: Option<Request<Body>> },
        Calling { #[pin] future: S::Future },
        Failed { error: Option<S::Error> },
    }
}

impl<S: Service<Request<Body>>> Future for Step<S> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project() {
                ProjectedStep::Waiting { service, request } => {
                    ready!(service.poll_ready(context))?;
                    let Some(request) = request.take() else {
                        panic!("an answered request was polled again");
                    };
                    service.call(request)
                }
                ProjectedStep::Calling { future } => return future.poll(context),
                ProjectedStep::Failed { error } => {
                    let Some(error) = error.take() else {
                        panic!("an answered request was polled again");
                    };
                    return Poll::Ready(Err(error));
                }
            };
            self.set(Self::Calling { future });
        }
    }
}

impl<S, R> Future for ResponseFuture<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let ProjectedKind::Authenticating {
            found,
            body,
            service,
            refused,
        } = self.as_mut().project().kind.project()
        {
            match ready!(found.as_mut().poll(context)) {
                Ok((head, _)) => {
                    let request = Request::from_parts(head, body.take().unwrap_or_default());
                    let passed = service.pass(request);
                    self.set(passed);
                }
                Err(rejection) => {
                    let mut response = rejection.map(Body::new);
                    if let Some(refused) = refused.take() {
                        refused.mark(&mut response);
                    }
                    return Poll::Ready(Ok(response));
                }
            }
        }
        match self.project().kind.project() {
            ProjectedKind::Authenticating { .. } => {
                unreachable!("the request that was let in is on its way")
            }
            ProjectedKind::Passed { step, style } => {
                let answered = ready!(step.poll(context));
                Poll::Ready(answered.map(|response| {
                    let response = response.map(Body::new);
                    match style {
                        Some(engine) => engine.restyled(response, full),
                        None => response,
                    }
                }))
            }
            ProjectedKind::Covered {
                future,
                failure,
                protocol,
            } => {
                let reply = ready!(Pin::new(future).poll(context));
                // The error of a service that failed is its answer, whatever became of the key.
                let answer = || Ok(protocol.out_of_engine(reply));
                Poll::Ready(failure.take().map_or_else(answer, Err))
            }
        }
    }
}

impl<S: Service<Request<Body>>> fmt::Debug for ResponseFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
