//! The engine: decides what happens with a request that carries a key, and makes it happen.
//!
//! It knows the [store's contract](crate::store) and plain HTTP types, no web framework and no database. This page is
//! its map; each folder has one of its own.
//!
//! # A request's way
//!
//! ```text
//! adapter            axum/run.rs, layer/ or once/: is the request covered (coverage.rs)? which handler?
//! run                here: what all requests to the endpoint have in common (core/plan)
//! exchange/serve     begins: as far as nothing waits, without a future
//! exchange/receive   who calls? -> parse the key -> read the body -> fingerprint
//! exchange/look      does this process execute the key? else: room for an execution? -> acquire, or read only
//!   exchange/rotation  the same, while a record may be under one of two secrets
//! exchange/decide    what was seen + what the route asks for -> the next step (pure)
//!   exchange/follow    another execution is in flight: wait in its queue (wait/), become the leader, look again
//!   exchange/execute   run the handler, or the recovery function first
//! exchange/stage     polls what waits: the handler (run/running), or a future for everything else (`Slow`)
//! run/ending         how the handler ended -> what is left to do (run/cacheable: is the response stored?)
//! run/commit         complete, release or abandon; run/recorder does it for streams
//! reply              problems, replays, the handler's own response
//! ```
//!
//! # What is ready is not awaited
//!
//! A request whose body is here, on a store that answers at once ([`try_acquire`](crate::Store::try_acquire)), goes from its
//! arrival to the call of its handler in plain functions, and from the handler's end to its answer likewise: the functions
//! with `now` in their names. Where one of them would have to wait, it hands over what it has to the `async` function that
//! goes on from there, in a future of its own. So each step is written once, and only requests that wait pay for waiting.
//!
//! # The modules
//!
//! | group | modules |
//! |---|---|
//! | the request | `coverage`, `exchange/`, `reply`, `body/`, `handler` (what an adapter brings), `detach` and `core/detach_state` (clients that leave) |
//! | the execution | `run/`: the handler at work, its ending, commit, recorder; `core/lease` and `core/keeper`: the lease and its heartbeat |
//! | waiting | `wait/`: the queues of the duplicates; `exchange/follow` uses them |
//! | doubt | `core/doubt`: acquires without an answer, and their withdrawal |
//! | shared by all | `core/`: store client, registry of what is in flight, room, gauges |
//! | set-up | `builder`, `build_error`, `profile`, `secrets`, `global` (the engine of the process) |
//! | the end | `shutdown` |
//! | operators | `admin`: find, list, inspect, resolve, purge; `operator`: acts with an audit. The page and its JSON are in `crate::admin` |
//! | documentation | `answering`: what clients are told |
//!
//! # In which order a request is checked
//!
//! Covered at all · caller · key · shutdown · size of the body · an execution of this process under the key · room for one more
//! execution (without it the record is only read) · acquire: mismatch before conflict.
//!
//! # Where limits and times live
//!
//! | limit or time | set in | enforced in |
//! |---|---|---|
//! | `ttl`, `lease`, `max_lifetime`, `wait_timeout`, `max_body`, `max_response` | `policy/options` (defaults in `policy/settings`) | `core/lease`, `core/keeper`, `exchange/follow`, `exchange/receive`, `run/ending`, `run/recorder` |
//! | how often a lease is renewed | `core/lease` (`interval`) | `core/keeper` |
//! | store time-out | `builder` | `core/store_client` |
//! | `max_detached` | `builder` | `core/room`, asked in `exchange/look` |
//! | the share of one caller in it | `core/room` (`Room::new`) | there |
//! | waiters per key, waiters and their bytes per process | `builder` | `wait/mod` |
//! | headers of a stored response | `builder` | `response::ResponseLimits`, through `run/ending` |
//! | length of a key | `builder` | `key`, through `core/mod` (`settings`) |
//! | pauses between polls | `crate::backoff` (`polling`) | `wait/mod`, `exchange/winner` |
//! | pauses and retry budget of a last write, and of a late outcome | `run/commit` (`repeat`; `LONGEST_PAUSE`, `PERSISTED_FOR`) | there |
//! | pauses, time and number of withdrawals | `core/doubt` (`WITHDRAWALS`, `WITHDRAWING`); `store::LONGEST_DELAY` | there |
//!
//! # Who writes to the store
//!
//! The claim in `exchange/look`; the renewals in `core/keeper`; the last write in `run/commit`. Besides these: `core/doubt` (a
//! claim in doubt), `crate::step::log` (steps), `shutdown` (what is in flight at the deadline), `admin` (an operator). All go through
//! `core/store_client`.
//!
//! # To change …
//!
//! | this | touch these |
//! |---|---|
//! | a problem code | `crate::problem`: `code` (variant, documentation), `table` (status, text); the metric label follows |
//! | which header carries the key | `policy/options` (`key_header`); `crate::names::KeyHeader` has the default and is the only reader |
//! | which responses are stored | `run/cacheable` |
//! | which errors of a wrapped service come before any work | here (`comes_before_any_work`) |
//! | what waits for a wrapped service | `handler` (`ready`), asked in `exchange/execute` |
//! | which recovery function is asked | `handler` (`recover`), called in `run/mod` |
//! | which response is stored before it is sent | `run/length` |
//! | which headers are stored | `response/filter` |
//! | what a handler's steps do | `crate::step`: `mod` (the call), `log` (what is known, and its limits), `entry` (the form at rest) |
//! | what a duplicate gets | `exchange/decide`; without room to wait, or when its time is up: `exchange/follow` |
//! | how keys are shown in logs | `crate::scope` (`StoreKey`: its first eight bytes) |
//! | what may be worked out once for an endpoint | `core/plan` |
//! | a store operation | `store/mod` (trait), `store/erased`, `store/connect` (`AnyStore`), `store/cached`, `core/store_client`, every store, the conformance suite, the custom-store example |
//! | an option of the attribute | `options/mod.rs` of the macro crate (the table), `policy/options`, `policy/settings` |
//! | a metric or span field | `crate::observe` |
//! | an engine-wide setting | `builder`, `core/mod` |

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, header};
use http_body::Body;
use tower::load_shed::error::Overloaded;

use crate::{
    caller::CallerFn,
    engine::core::services::Services,
    execution::Execution,
    observe::RequestResult,
    policy::Policy,
    problem::ProblemCode,
    route::{Routing, endpoint},
};

mod admin;
#[cfg(feature = "openapi")]
mod answering;
mod body;
mod build_error;
mod builder;
pub(crate) mod core;
mod coverage;
mod detach;
mod exchange;
#[cfg(feature = "handlers")]
mod global;
mod handler;
mod operator;
mod profile;
mod reply;
mod run;
mod secrets;
mod shutdown;
mod wait;

pub use admin::{Resolution, ResolveError};
#[cfg(feature = "openapi")]
pub(crate) use answering::Answering;
pub(crate) use body::ResponseBody;
pub use build_error::BuildError;
pub use builder::Builder;
pub(crate) use core::plan::{Plan, Plans};
pub use core::{Idempotency, on_store_error::OnStoreError};
pub(crate) use coverage::{Coverage, FoundKey, coverage};
use exchange::Exchange;
pub(crate) use exchange::Served;
#[cfg(feature = "handlers")]
pub use global::InstallError;
pub(crate) use handler::{BoxError, BoxFuture, Handler, HandlerResult, NotReady, Recovering};
pub use operator::{Operator, OperatorError};
pub use profile::Profile;
pub(crate) use reply::{Refused, Reply};
pub use run::Retention;
pub use shutdown::Shutdown;

/// Marks the response of this problem, which was made without an engine, and so without its style.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unstyled(pub(crate) ProblemCode);

/// Response headers that are true of one body only.
static ABOUT_THE_BODY: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::ETAG,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

impl Idempotency {
    /// What this engine has to do with a request to a route with this policy.
    pub(crate) fn coverage<B>(
        &self,
        policy: &Policy,
        request: &mut Request<B>,
        routing: &Routing,
    ) -> Coverage {
        let coverage = coverage(policy, &self.0.defaults, request, routing);
        if let Coverage::Unprotected | Coverage::Protected(FoundKey::Missing) = coverage {
            self.0.warn_of_a_misnamed_key(policy, request.headers());
        }
        coverage
    }

    /// What a relay of the outbox uses of the engine.
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.0.services
    }

    /// Where background tasks run; `None` outside of a runtime, where none was chosen.
    pub(crate) fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.0.runtime.handle()
    }

    /// The engine's own caller step.
    pub(crate) fn caller(&self) -> Option<&CallerFn> {
        self.0.caller.as_ref()
    }

    /// Says once that gRPC calls with a key are not protected.
    pub(crate) fn warn_of_grpc(&self) {
        self.0.warnings.grpc();
    }

    /// The engine's own caller step for a request that an execution around it has claimed, unless that is this engine's.
    pub(crate) fn caller_inside<B>(&self, request: &Request<B>) -> Option<&CallerFn> {
        let execution = request.extensions().get::<Execution>()?;
        let caller = self.0.caller.as_ref();
        caller.filter(|_| !execution.is_of(&self.0.digester))
    }

    /// Says once for each endpoint that its caller is asked for executions only, because the engine around it replays
    /// without one.
    pub(crate) fn warn_of_a_caller_inside<B>(
        &self,
        policy: &Policy,
        request: &Request<B>,
        routing: &Routing,
    ) {
        let execution = request.extensions().get::<Execution>();
        if execution.is_some_and(|execution| !execution.has_caller()) {
            let endpoint = endpoint(policy, request, routing);
            self.0.warnings.caller_inside(endpoint.label());
        }
    }

    /// Whether this error of a wrapped service's call is known to come before any work. A service that sheds load says so
    /// `at_once`; one that says it later may have done some work, and pass on that another service was overloaded.
    pub(crate) fn comes_before_any_work(&self, error: &dyn Any, at_once: bool) -> bool {
        let Some(error) = error.downcast_ref::<BoxError>() else {
            return at_once && error.is::<Overloaded>();
        };
        // Not its sources, for the same reason.
        (at_once && error.is::<Overloaded>())
            || self.0.not_started.is_some_and(|names| names(error))
    }

    /// This engine, if its problems look different from those of an engine with all defaults.
    pub(crate) fn with_own_style(&self) -> Option<Self> {
        let is_own = self.0.problem_style.is_own() || self.0.outcome_header.is_some();
        is_own.then(|| self.clone())
    }

    /// Whether this is the same engine.
    #[cfg(feature = "handlers")]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A response in this engine's style if it is a problem that was made without knowing an engine: the `missing_key` of
    /// an [`Execution`] extractor, or the `outcome_unknown` of a step. What layers in between added to its head stays; what they said of its old body does not.
    pub(crate) fn restyled<P>(
        &self,
        mut response: Response<P>,
        body: impl FnOnce(Bytes) -> P,
    ) -> Response<P> {
        let Some(Unstyled(code)) = response.extensions_mut().remove() else {
            return response;
        };
        let (problem, bytes) = reply::problem(&self.0, &code.into()).into_parts();
        *response.status_mut() = problem.status;
        let headers = response.headers_mut();
        for name in &ABOUT_THE_BODY {
            headers.remove(name);
        }
        for (name, value) in &problem.headers {
            headers.insert(name, value.clone());
        }
        let result = RequestResult::Problem(code);
        reply::name_outcome(&self.0, result, &mut response);
        response.map(|_| body(bytes))
    }

    /// What the requests to this endpoint have in common. The policy is a constant of the program.
    #[cfg(feature = "handlers")]
    pub(crate) fn plan(
        &self,
        policy: &'static Policy,
        method: &Method,
        template: Option<&str>,
    ) -> Arc<Plan> {
        let address = std::ptr::from_ref(policy).addr();
        self.0
            .plans
            .get(&self.0, (policy, address), method, template)
    }

    /// The same for a policy that has a table of its own.
    pub(crate) fn plan_in(
        &self,
        plans: &Plans,
        policy: &Policy,
        method: &Method,
        template: Option<&str>,
    ) -> Arc<Plan> {
        plans.get(&self.0, (policy, 0), method, template)
    }

    /// The plan of an operation that is no request.
    pub(crate) fn plan_of_operation(&self, policy: &Policy) -> Arc<Plan> {
        Arc::new(Plan::of_operation(&self.0, policy))
    }

    /// Serves one request that the engine [covers](Self::coverage). What it returns is polled next, within a runtime.
    pub(crate) fn run<B, H>(
        self,
        plan: Arc<Plan>,
        found: FoundKey,
        mut request: Request<B>,
        handler: H,
    ) -> Served<Reply<H::Body>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
        H: Handler,
    {
        let max_body = if plan.limited_by_route {
            (H::ROUTING.body_limit)(request.extensions_mut())
        } else {
            plan.settings.max_body
        };
        let exchange = Exchange::new((self.0, plan), found, max_body, H::ROUTING);
        Served::begin(exchange, request, handler)
    }
}
