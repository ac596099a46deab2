//! Idempotency for any tower service, without the attribute.
//!
//! [`IdempotencyLayer`] wraps a service or a whole router and covers every request of the methods it is told.
//! It differs from the attribute in three ways:
//!
//! 1. It has one policy for all it wraps.
//! 2. It cannot tell an extractor's rejection from an answer of the handler: both are outcomes. Statuses that
//!    ask for the same request again still release the key.
//! 3. A service can fail without a response, a handler cannot. The error is passed on, and the key's outcome is
//!    unknown.
//!
//! Where both are on one route, the layer, being outside, decides, and the handler executes and is stored once.
//!
//! ```
//! use idempotent_runtime::{Idempotency, IdempotencyLayer};
//! use axum::{Router, routing::post};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let idempotency = Idempotency::builder().build()?;
//! let app: Router = Router::new()
//!     .route("/payments", post(|| async { "paid" }))
//!     .route_layer(IdempotencyLayer::new(idempotency));
//! # Ok(())
//! # }
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    caller::{Authentication, CallerFn},
    engine::{
        BoxError, BoxFuture, Coverage, Detachable, Handler, HandlerResult, Idempotency,
        ResponseBody,
    },
    policy::Policy,
    problem::ProblemCode,
    route::route,
    scope::Scope,
};

mod body;

pub use body::RequestBody;

/// Wraps services in idempotency. See the [module documentation](self).
#[derive(Clone, Debug)]
pub struct IdempotencyLayer {
    engine: Idempotency,
    policy: Policy,
    methods: Arc<[Method]>,
    caller: Option<CallerFn>,
}

impl IdempotencyLayer {
    /// Covers POST, PUT, PATCH and DELETE with the engine's default policy.
    #[must_use]
    pub fn new(engine: Idempotency) -> Self {
        let methods = Arc::new([Method::POST, Method::PUT, Method::PATCH, Method::DELETE]);
        Self {
            engine,
            policy: Policy::new(),
            methods,
            caller: None,
        }
    }

    /// What this layer chooses differently from the engine's default policy.
    ///
    /// # Panics
    ///
    /// If the policy has a name: the layer may wrap several routes, and a name would make one endpoint of them. A layer
    /// around a single route takes its name by [`endpoint`](Self::endpoint).
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        assert!(
            policy.name.is_none(),
            "the policy of a layer has the name {:?}, which would make one endpoint of all routes that the layer wraps: \
             name routes by the attribute, or put a layer with `endpoint(…)` around the one route",
            policy.name.as_ref().map_or("", |name| name.as_str()),
        );
        self.policy = Policy {
            name: self.policy.name.take(),
            ..policy
        };
        self
    }

    /// The endpoint in the scope, for a layer around a single route: the route keeps its records when its path changes.
    #[must_use]
    pub fn endpoint(mut self, name: impl Into<Arc<str>>) -> Self {
        self.policy = self.policy.owned_name(name);
        self
    }

    /// The methods to cover; requests of others pass by.
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.methods = methods.into_iter().collect();
        self
    }

    /// Finds out who calls, instead of the engine's [`caller`](crate::Builder::caller), which says more about it.
    ///
    /// ```
    /// use axum::{Router, extract::FromRequestParts, http::{StatusCode, request::Parts}, routing::post};
    /// use idempotent_runtime::{Caller, Idempotency, IdempotencyLayer, Scope, scope};
    ///
    /// #[derive(Clone)]
    /// struct App;
    ///
    /// struct CurrentUser {
    ///     id: u64,
    /// }
    ///
    /// impl FromRequestParts<App> for CurrentUser {
    ///     type Rejection = StatusCode;
    ///
    ///     async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, StatusCode> {
    ///         # let _ = (parts, app);
    ///         Err(StatusCode::UNAUTHORIZED) // unless a session says otherwise
    ///     }
    /// }
    ///
    /// impl Caller for CurrentUser {
    ///     fn scope(&self) -> Scope {
    ///         Scope::new(self.id.to_string())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App;
    /// let idempotency = Idempotency::builder().build()?;
    /// let layer = IdempotencyLayer::new(idempotency)
    ///     .caller(scope::extractor::<CurrentUser, App>(app.clone()));
    /// let router: Router = Router::new()
    ///     .route("/payments", post(async |user: CurrentUser| format!("paid by {}", user.id)))
    ///     .route_layer(layer)
    ///     .with_state(app);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn caller<F, R, B>(mut self, find: F) -> Self
    where
        F: Fn(Parts) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(Parts, Scope), Response<B>>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.caller = Some(CallerFn::new(find));
        self
    }

    /// An annotated handler inside uses this layer's engine, also for a method that the layer does not cover.
    fn offer_engine<B>(&self, request: &mut Request<B>) {
        if self.engine.may_cover(&self.policy, request.headers()) {
            request.extensions_mut().insert(self.engine.clone());
        }
    }

    fn coverage<B>(&self, request: &mut Request<B>) -> Coverage {
        if !self.methods.contains(request.method()) {
            return Coverage::Unprotected;
        }
        self.engine.coverage(&self.policy, request)
    }
}

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
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Coverage::Protected(found) = self.layer.coverage(&mut request) else {
            self.layer.offer_engine(&mut request);
            return ResponseFuture {
                kind: Kind::Passed {
                    future: self.inner.call(request.map(RequestBody::unread)),
                    style: self.layer.engine.with_own_style(),
                },
            };
        };
        // The service that was polled ready goes with the request, a clone stays.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let failure = Arc::new(Mutex::new(None));
        let handler = WrappedService {
            service: ready,
            caller: self.layer.caller.clone(),
            failure: Arc::clone(&failure),
            body: std::marker::PhantomData,
        };
        let IdempotencyLayer { engine, policy, .. } = &self.layer;
        let route = route(
            policy.name.as_ref(),
            request.method(),
            request.uri(),
            request.extensions(),
        );
        let future = engine.clone().run(policy, route, found, request, handler);
        ResponseFuture {
            kind: Kind::Covered { future, failure },
        }
    }
}

/// The wrapped service, called at most once.
struct WrappedService<S, E, B> {
    service: S,
    caller: Option<CallerFn>,
    /// Where its error goes, past the engine.
    failure: Arc<Mutex<Option<E>>>,
    body: std::marker::PhantomData<fn(B)>,
}

impl<S, B, R> Handler for WrappedService<S, S::Error, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: 'static,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Body = R;
    type Future = BoxFuture<HandlerResult<R>>;

    fn authenticate(&self, head: Parts) -> Authentication {
        match &self.caller {
            Some(caller) => caller.start(head),
            None => Authentication::None(head),
        }
    }

    fn call(mut self, request: Request<Bytes>) -> Self::Future {
        let called = self.service.call(request.map(RequestBody::read));
        let failure = self.failure;
        Box::pin(async move {
            match called.await {
                Ok(response) => HandlerResult::Returned(response),
                Err(error) => {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    HandlerResult::Failed
                }
            }
        })
    }
}

pin_project! {
    /// The future of [`IdempotencyService`].
    pub struct ResponseFuture<F, R, E>
    where
        R: Send,
        R: 'static,
    {
        #[pin]
        kind: Kind<F, R, E>,
    }
}

pin_project! {
    #[project = Projected]
    enum Kind<F, R, E>
    where
        R: Send,
        R: 'static,
    {
        Passed { #[pin] future: F, style: Option<Idempotency> },
        Covered { future: Detachable<Response<ResponseBody<R>>>, failure: Arc<Mutex<Option<E>>> },
    }
}

impl<F, R, E> Future for ResponseFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Send,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            Projected::Passed { future, style } => {
                let answered = ready!(future.poll(context));
                Poll::Ready(answered.map(|response| {
                    let restyled = style
                        .as_ref()
                        .and_then(|engine| engine.restyled(response.extensions()));
                    match restyled {
                        Some(problem) => problem.map(ResponseBody::full),
                        None => response.map(ResponseBody::live),
                    }
                }))
            }
            Projected::Covered { future, failure } => {
                let reply = ready!(Pin::new(future).poll(context));
                // The error of a service that failed is its answer, also if it was fenced out.
                let unknown = reply.extensions().get() == Some(&ProblemCode::OutcomeUnknown);
                let failed = failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                Poll::Ready(match failed {
                    Some(error) if unknown => Err(error),
                    _ => Ok(reply),
                })
            }
        }
    }
}

impl<F, R: Send, E> fmt::Debug for ResponseFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
