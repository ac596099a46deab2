//! What everything in the engine shares. Nothing here knows a request.
//!
//! | file | what it holds |
//! |---|---|
//! | `runtime` | where background tasks run |
//! | `store_client` | the store under the engine's time-out; the only caller of store operations |
//! | `in_flight` | which requests are admitted and which keys this process executes; what a shutdown waits for |
//! | `services` | what an execution uses of its engine |
//! | `lease` | one execution under its lease |
//! | `detach_state`, `detach_handle` | whether the client is there, and what goes on without it |
//! | `plan` | what the requests to one endpoint have in common |
//! | `keeper` | the heartbeat: renews every lease of this process |
//! | `doubt` | what is not known about a claim, and its withdrawal |
//! | `room` | the places for executions without a client, in all and per caller |
//! | `alive` | how many engines there are |
//! | `slot` | the handler's transaction, and where it is |
//! | `gauge` | counts what exists at the same time |
//! | `warnings` | what the log says once |
//! | `on_store_error` | the choice for a store that cannot be asked |

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{HeaderMap, HeaderName};
use tokio::sync::Semaphore;

use crate::{
    caller::CallerFn,
    credentials::Credentials,
    observe,
    policy::{KeySource, Policy, Settings},
    problem::ProblemStyle,
    response::{ResponseLimits, Sealer},
    scope::{Digester, ScopeFn},
};

pub(super) mod alive;
pub(super) mod detach_handle;
pub(super) mod detach_state;
pub(super) mod doubt;
pub(super) mod gauge;
pub(super) mod in_flight;
pub(super) mod keeper;
pub(crate) mod lease;
pub(super) mod on_store_error;
pub(super) mod plan;
pub(super) mod room;
pub(super) mod runtime;
pub(crate) mod services;
pub(crate) mod slot;
pub(crate) mod store_client;
mod warnings;

use super::{handler::BoxError, wait::WaitQueues};
use alive::Alive;
use gauge::Gauge;
use in_flight::InFlight;
use keeper::Keeper;
use on_store_error::OnStoreError;
#[cfg(feature = "handlers")]
use plan::Plans;
use room::Room;
use runtime::TaskRuntime;
use services::Services;
use store_client::StoreClient;
pub(super) use warnings::Warnings;

/// The engine: one store, one default policy, all routes that use it. Cloning shares it.
///
/// ```
/// use idempotent_runtime::{Idempotency, Policy, scope};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let idempotency = Idempotency::builder()
///     .policy(Policy::new().ttl(std::time::Duration::from_secs(3600)))
///     .scope(scope::header("x-tenant"))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Idempotency(pub(super) Arc<Core>);

/// What some clients call the header of their keys.
const MISNAMED: &str = "x-idempotency-key";

/// What an [`Idempotency`] is a handle on.
pub(crate) struct Core {
    pub(super) store: Arc<StoreClient>,
    /// Where background tasks run.
    pub(super) runtime: TaskRuntime,
    /// What a route gets that did not choose for itself.
    pub(super) defaults: Policy,
    /// Finds out who calls, before all else.
    pub(super) caller: Option<CallerFn>,
    pub(super) scope: Option<ScopeFn>,
    /// Who calls where no scope says it.
    pub(super) credentials: Credentials,
    /// Which headers name the account on whose behalf a caller acts.
    pub(super) account_headers: &'static [HeaderName],
    pub(super) digester: Arc<Digester>,
    /// Of the other secret under which records are found, while the secret is rotated.
    pub(super) other_digester: Option<Arc<Digester>>,
    /// What executions use of the engine, by the digester that named their record.
    pub(super) services: Arc<Services>,
    pub(super) other_services: Option<Arc<Services>>,
    pub(super) problem_style: ProblemStyle,
    pub(super) replay_header: HeaderName,
    /// The header that names how a request ended, if any.
    pub(super) outcome_header: Option<HeaderName>,
    pub(super) on_store_error: OnStoreError,
    /// Names errors of wrapped services that come before any work.
    pub(super) not_started: Option<fn(&BoxError) -> bool>,
    pub(super) wait_queues: WaitQueues,
    pub(super) in_flight: InFlight,
    pub(super) keeper: Keeper,
    /// The places for executions without a client.
    pub(super) room: Room,
    /// Claims in doubt that are being withdrawn.
    pub(super) withdrawals: Gauge,
    /// The turns that they take.
    pub(super) withdrawing: Semaphore,
    pub(super) max_key_length: usize,
    /// Whether a key under another name was warned of.
    pub(super) misnamed_key_seen: AtomicBool,
    pub(super) response_limits: ResponseLimits,
    pub(super) sealer: Sealer,
    /// Whether the admin routes change and reveal records.
    #[cfg(feature = "admin")]
    pub(super) admin_writes: bool,
    /// What the requests to one endpoint have in common, by endpoint, for policies that are constants of the program.
    #[cfg(feature = "handlers")]
    pub(super) plans: Plans,
    /// Counted for as long as it lives.
    pub(super) _alive: Alive,
    pub(super) warnings: Warnings,
}

impl Core {
    /// Describes every metric, and has the counters begin at zero.
    pub(super) fn begin_metrics(&self) {
        observe::begin();
        self.store.metrics().begin();
    }

    /// Says once that a client sends its keys under a name that this route does not read: nothing else would show it.
    pub(super) fn warn_of_a_misnamed_key(&self, policy: &Policy, headers: &HeaderMap) {
        if let KeySource::Header(header) = policy.key_source(&self.defaults)
            && !self.misnamed_key_seen.load(Ordering::Relaxed)
            && headers.contains_key(MISNAMED)
            && !self.misnamed_key_seen.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "a request has `{MISNAMED}` and no `{}`, which this route reads: it is not protected. Have the client \
                 rename its header, or set `header = \"{MISNAMED}\"`. This is said once",
                header.as_str()
            );
        }
    }

    /// What a route with this policy gets.
    pub(super) fn settings(&self, policy: &Policy) -> Settings {
        let mut settings = Settings::resolve(policy, &self.defaults);
        settings.key_rules.max_len = self.max_key_length;
        settings
    }

    /// How large a response may be to be stored.
    pub(super) fn response_limits(&self, settings: &Settings) -> ResponseLimits {
        ResponseLimits {
            max_body: settings.max_response,
            ..self.response_limits
        }
    }
}

impl std::fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idempotency")
            .field("store", &self.0.store.store().name())
            .field("policy", &self.0.defaults)
            .field("in_flight", &self.0.in_flight.len())
            .field("detached", &self.0.room.detached().count())
            .field("waiters", &self.0.wait_queues.len())
            .field("withdrawals", &self.0.withdrawals.count())
            .finish_non_exhaustive()
    }
}
