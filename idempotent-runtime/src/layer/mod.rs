//! Idempotency for any tower service, without the attribute.
//!
//! [`IdempotencyLayer`] wraps a service or a whole router and covers every request of the methods it is told.
//! It differs from the attribute in three ways:
//!
//! 1. It has one policy for all it wraps.
//! 2. It cannot tell an extractor's rejection from an answer of the handler: both are outcomes.
//! 3. A service can fail without a response, a handler cannot. The error is passed on, and the key's outcome is
//!    unknown, unless the error is known to come before any work (below).
//!
//! Where both are on one route, the layer, being outside, decides, and the handler executes and is stored once.
//! [Both at once](crate::guide::layers#both-at-once) says what becomes of a caller or a key of its own inside.
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
//!
//! # Bodies
//!
//! The wrapped service gets requests with axum's [`Body`], whatever the body outside, and the layer answers with it,
//! whatever the body inside: the engine has to make requests from bytes that it has read, and responses from bytes that a
//! store has kept. So the layer stands in `ServiceBuilder` stacks beside layers that require one body type
//! (`axum::middleware::from_fn`) or one that has a default (CORS, time-outs). No part of axum but its body is needed: a
//! service without the feature `axum` finds the type here.
//!
//! # Readiness
//!
//! 1. The layer itself is always ready. A replay, a wait, a mismatch or a conflict takes nothing from the wrapped service
//!    and is answered while that one is busy, full or sheds load. A load-shedding layer *outside* therefore never sheds:
//!    it belongs inside, next to the limit that makes it shed.
//! 2. A request that executes claims its key first. Then a clone of the wrapped service is waited for until it is ready, and
//!    called. Its duplicates wait meanwhile as for any execution. If that takes longer than a lease, the claim is given
//!    back and the client gets 503 `overloaded`.
//! 3. An error of the readiness releases the key and is the caller's error. So does an error of the call that is known to
//!    come before any work: tower's `load_shed::error::Overloaded`, if the call fails with it at once, and what
//!    [`Builder::not_started`](crate::Builder::not_started) names.
//! 4. A request that is not covered goes to the wrapped service as soon as that one is ready.
//!
//! # gRPC
//!
//! Calls of the unary methods that [`IdempotencyLayer::grpc`] lists (feature `grpc`) are protected as requests are: [the
//! guide](crate::guide::grpc) says what is stored, and which statuses the engine answers with.
//!
//! Every other gRPC call (`Content-Type: application/grpc…`) passes the layer untouched, with or without a key: a stream of
//! requests cannot be read to its end before it is answered, and which methods are unary, only their service knows. Only a
//! caller that the layer or the engine names is asked. **Such a call is not protected**, also where a key is required; the
//! log says so once.
//!
//! # The router's own answers
//!
//! Around axum's router (`Router::layer`, `route_layer`; feature `axum`), a 404 because no route matched and a 405 because
//! the route has no such method release the key: nothing ran, and a deploy may add the route. A layer sees them as
//! responses only, so they are recognised by what no handler's answer has together: no header, no body, given at once, by
//! code that looked at neither the request's body nor its [`Execution`](crate::Execution), and for a 404 without a matched
//! route. What is in doubt is stored, and so are the answers of a router as a whole, around which a layer stands
//! (`ServiceBuilder::service(router)`). A fallback handler that has an effect and answers with a bare 404, or a handler that
//! has one and answers with a bare 405, says [`Retention::Store`](crate::Retention::Store).

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};

pub use crate::body::Body;
use crate::{
    caller::CallerFn,
    engine::{BoxError, Coverage, Idempotency, Plans},
    execution::{Crash, Recovery},
    policy::{OnCrash, Policy},
    scope::Scope,
};

mod failure;
mod protocol;
mod recovery;
mod service;
mod untouched;
mod wrapped_service;

#[cfg(feature = "axum")]
use crate::axum::ROUTING;
#[cfg(not(feature = "axum"))]
use crate::route::NO_ROUTING as ROUTING;

use protocol::Methods;
use recovery::RecoveryFn;
pub use service::{IdempotencyService, ResponseFuture};

/// Wraps services in idempotency. See the [module documentation](self).
#[derive(Clone, Debug)]
pub struct IdempotencyLayer {
    engine: Idempotency,
    policy: Policy,
    /// Made for this engine and this policy.
    plans: Arc<Plans>,
    methods: Arc<[Method]>,
    grpc_methods: Methods,
    caller: Option<CallerFn>,
    recovery: Option<RecoveryFn>,
}

impl IdempotencyLayer {
    /// Covers POST, PUT, PATCH and DELETE with the engine's default policy.
    #[must_use]
    pub fn new(engine: Idempotency) -> Self {
        let methods = Arc::new([Method::POST, Method::PUT, Method::PATCH, Method::DELETE]);
        Self {
            engine,
            policy: Policy::new(),
            plans: Arc::new(Plans::new()),
            methods,
            grpc_methods: Methods::default(),
            caller: None,
            recovery: None,
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
        let own = self.recovery.as_ref().and(self.policy.on_crash);
        self.policy = Policy {
            name: self.policy.name.take(),
            on_crash: own.or(policy.on_crash),
            ..policy
        };
        self.plans = Arc::new(Plans::new());
        self
    }

    /// The endpoint in the scope, for a layer around a single route: the route keeps its records when its path changes.
    #[must_use]
    pub fn endpoint(mut self, name: impl Into<Arc<str>>) -> Self {
        self.policy = self.policy.owned_name(name);
        self.plans = Arc::new(Plans::new());
        self
    }

    /// The methods to cover; requests of others pass by.
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.methods = methods.into_iter().collect();
        self
    }

    /// The unary gRPC methods to protect, by their paths, such as `/payments.v1.Payments/Charge`. Calls of others pass
    /// unprotected: see [gRPC](self#grpc) for what becomes of a call, and for why none is protected that is not listed.
    ///
    /// # Panics
    ///
    /// If one of them has not the form `/package.Service/Method`.
    #[cfg(feature = "grpc")]
    #[cfg_attr(docsrs, doc(cfg(feature = "grpc")))]
    #[must_use]
    pub fn grpc<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        self.grpc_methods = Methods::new(methods.into_iter().map(Into::into));
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
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.caller = Some(CallerFn::new(find));
        self
    }

    /// Finds out what became of an execution that crashed, by a function that owns something, such as a connection pool.
    /// It goes before the policy's [`on_crash`](Policy::on_crash), whose function owns nothing and finds what it needs in the
    /// extensions of [`Crash::request`].
    ///
    /// A panic in it leaves the outcome unknown: the next retry asks again. If it takes longer than a lease and says
    /// [`Recovery::NotExecuted`], the claim is given back and the client gets 503 `overloaded`.
    ///
    /// ```
    /// # use idempotent_runtime::{Crash, Idempotency, IdempotencyLayer, Recovery};
    /// # #[derive(Clone)] struct Ledger;
    /// # impl Ledger { async fn ask(&self, _: Crash) -> Recovery { Recovery::StillUnknown } }
    /// # let (idempotency, ledger) = (Idempotency::builder().build().unwrap(), Ledger);
    /// let layer = IdempotencyLayer::new(idempotency).recover(move |crash| {
    ///     let ledger = ledger.clone();
    ///     async move { ledger.ask(crash).await }
    /// });
    /// ```
    #[must_use]
    pub fn recover<F, R>(mut self, recover: F) -> Self
    where
        F: Fn(Crash) -> R + Send + Sync + 'static,
        R: Future<Output = Recovery> + Send + 'static,
    {
        self.policy = self.policy.on_crash(OnCrash::BY_THE_HANDLER);
        self.plans = Arc::new(Plans::new());
        self.recovery = Some(RecoveryFn::new(recover));
        self
    }

    /// An annotated handler inside uses this layer's engine, also for a method that the layer does not cover, and for a
    /// key that only the handler knows of. Nothing is allocated where the handler finds this engine anyway.
    #[cfg(feature = "axum")]
    fn offer_engine<B>(&self, request: &mut Request<B>) {
        let found = Idempotency::for_route(None, request.extensions());
        if found.is_none_or(|found| !found.is(&self.engine)) {
            request.extensions_mut().insert(self.engine.clone());
        }
    }

    /// Without the feature `axum` there are no annotated handlers.
    #[cfg(not(feature = "axum"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn offer_engine<B>(&self, _: &mut Request<B>) {}

    fn coverage<B>(&self, request: &mut Request<B>) -> Coverage {
        if !self.methods.contains(request.method()) {
            return Coverage::Unprotected;
        }
        self.engine.coverage(&self.policy, request, &ROUTING)
    }
}
