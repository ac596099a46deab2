//! The engine: decides what happens with a request that carries a key, and makes it happen.
//!
//! It knows the [store's contract](crate::store) and plain HTTP types, no web framework and no database. A
//! request's way through it:
//!
//! ```text
//! visit     parse the key, read the body, fingerprint, acquire
//! decide    what the store said + what the route asks for -> the next step (pure)
//! follow    another execution is in flight: wait for its outcome, or take its place
//! execute   run the handler under its lease
//! commit    store its outcome, or give the key up; then answer
//! stream    the same for a response of unknown length
//! resolve   a crashed execution, a fenced one, a store that fails
//! attend    whose task all this runs in, and what happens when the client goes away
//! ```

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request, Response, request::Parts};
use http_body::Body;
use tracing::Instrument;

use crate::{
    observe,
    policy::{Policy, Settings},
    problem::ProblemStyle,
    response::{ResponseLimits, Sealer},
    scope::{Digester, Scope, ScopeFn},
};

mod answer;
mod attend;
mod body;
mod boundary;
mod builder;
mod caught;
mod cell;
mod commit;
mod decide;
mod execute;
mod execution;
mod follow;
mod inspect;
mod lease;
mod ops;
#[cfg(feature = "axum")]
mod process;
mod profile;
mod resolve;
mod retention;
mod running;
mod stream;
mod visit;
mod wait;
mod whole;

pub(crate) use attend::Attended;
pub use body::ResponseBody;
#[cfg(feature = "axum")]
pub(crate) use body::Simplified;
pub(crate) use boundary::{BoxError, BoxFuture, Ran, Route, Work};
pub use builder::{BuildError, Builder, OnStoreError};
pub use execution::{Crash, Execution, Recovery};
pub use inspect::{Resolution, ResolveError};
pub use profile::Profile;
pub use retention::Retention;
pub use running::Shutdown;

use attend::{Attendance, Counted};
use builder::OnStoreError as StoreErrorChoice;
use ops::Ops;
use running::Running;
use visit::Visit;
use wait::WaitRoom;

/// A response that went through the engine.
pub(crate) type Reply<B> = Response<ResponseBody<B>>;

/// The engine: one store, one default policy, all routes that use it. Cloning shares it.
///
/// ```
/// use idempotent_runtime::{Idempotency, Policy, scope};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let idempotency = Idempotency::builder()
///     .policy(Policy::new().ttl(std::time::Duration::from_secs(3600)))
///     .scope(scope::header(http::HeaderName::from_static("x-tenant")))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Idempotency(Arc<Inner>);

struct Inner {
    ops: Ops,
    defaults: Policy,
    scope: Option<ScopeFn>,
    digester: Digester,
    problem_style: ProblemStyle,
    replay_header: HeaderName,
    on_store_error: StoreErrorChoice,
    wait_room: WaitRoom,
    running: Running,
    detached: Counted,
    withdrawals: Counted,
    max_detached: usize,
    max_key_length: usize,
    response_limits: ResponseLimits,
    sealer: Sealer,
}

impl Idempotency {
    /// Starts putting an engine together.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Whether a request is the engine's business: it has a key, or has to have one.
    pub(crate) fn covers(&self, policy: &Policy, headers: &HeaderMap) -> bool {
        let defaults = &self.0.defaults;
        policy.required.or(defaults.required).unwrap_or(false)
            || policy.key_header(defaults).is_in(headers)
    }

    /// Serves one request that the engine [covers](Self::covers).
    pub(crate) fn run<B, W>(
        self,
        policy: &Policy,
        route: Route,
        request: Request<B>,
        work: W,
    ) -> Attended<Reply<W::Body>>
    where
        B: Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
        W: Work,
    {
        let attendance = Arc::new(Attendance::default());
        let span = observe::span(route.label());
        let visit = Box::new(Visit {
            settings: self.settings(policy),
            engine: self,
            route,
            attendance: Arc::clone(&attendance),
            admission: None,
        });
        let detached = visit.engine.0.detached.clone();
        let served = visit.serve(request, work).instrument(span);
        Attended::new(attendance, detached, served)
    }

    /// Whether one more execution may come to run without its client.
    fn has_room(&self) -> bool {
        self.0.detached.count() < self.0.max_detached
    }

    /// What a route gets that chooses this.
    fn settings(&self, policy: &Policy) -> Settings {
        let mut settings = Settings::resolve(policy, &self.0.defaults);
        settings.key_rules.max_len = self.0.max_key_length;
        settings
    }

    fn sealer(&self) -> &Sealer {
        &self.0.sealer
    }

    /// What a response may be to be kept.
    fn response_limits(&self, settings: &Settings) -> ResponseLimits {
        ResponseLimits {
            max_body: settings.max_response,
            ..self.0.response_limits
        }
    }

    fn scope(&self, head: &Parts) -> Option<Scope> {
        self.0.scope.as_ref().and_then(|scope| scope(head))
    }

    fn ops(&self) -> &Ops {
        &self.0.ops
    }

    fn digester(&self) -> &Digester {
        &self.0.digester
    }

    fn problem_style(&self) -> &ProblemStyle {
        &self.0.problem_style
    }

    fn replay_header(&self) -> &HeaderName {
        &self.0.replay_header
    }

    fn on_store_error(&self) -> StoreErrorChoice {
        self.0.on_store_error
    }

    fn wait_room(&self) -> &WaitRoom {
        &self.0.wait_room
    }

    fn running(&self) -> &Running {
        &self.0.running
    }

    fn detached(&self) -> &Counted {
        &self.0.detached
    }

    fn withdrawals(&self) -> &Counted {
        &self.0.withdrawals
    }
}

impl std::fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idempotency")
            .field("store", &self.0.ops.store().name())
            .field("policy", &self.0.defaults)
            .field("detached", &self.0.detached.count())
            .field("waiters", &self.0.wait_room.len())
            .finish_non_exhaustive()
    }
}
