//! Settings into an engine: the check of what cannot work, and the wiring.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::Builder;
use crate::{
    engine::{
        build_error::BuildError,
        core::{
            Core, Idempotency, Warnings, alive::Alive, doubt::WITHDRAWING, gauge::Gauge,
            in_flight::InFlight, keeper::Keeper, room::Room, runtime::TaskRuntime,
            services::Services, store_client::StoreClient,
        },
        profile::Profile,
        wait::WaitQueues,
    },
    observe,
    policy::Policy,
    problem::ProblemStyle,
    scope::Digester,
    store::{Wake, erased::ErasedStore},
};

impl Builder {
    /// The engine, for the routers that are given it. Most applications have one engine for all routes and
    /// [`install`](Self::install) it.
    ///
    /// # Errors
    ///
    /// Settings that cannot work, see [`BuildError`].
    pub fn build(self) -> Result<Idempotency, BuildError> {
        let defaults = self.policy.clone().or(&self.profile.policy());
        self.check(&defaults)?;
        let (digester, other_digester) = self.secrets.digesters()?;
        let problem_style = self.problem_style();
        let store = chosen_store(self.store, self.require_transactions)?;
        let replay_header = self
            .replay_header
            .unwrap_or_else(|| self.profile.replay_header());
        if self.outcome_header.as_ref() == Some(&replay_header) {
            let name = replay_header;
            return Err(BuildError::SameHeader { name });
        }
        let runtime = TaskRuntime::new(self.runtime);
        let store = Arc::new(StoreClient::new(store, runtime.clone(), self.store_timeout));
        let services = |digester: &Arc<Digester>| {
            Arc::new(Services {
                digester: Arc::clone(digester),
                store: Arc::clone(&store),
                sealer: self.sealer.clone(),
            })
        };
        let digester = Arc::new(digester);
        let other_digester = other_digester.map(Arc::new);
        let core = Arc::new(Core {
            services: services(&digester),
            other_services: other_digester.as_ref().map(services),
            store,
            runtime,
            defaults,
            caller: self.caller,
            scope: self.scope,
            credentials: self.credentials,
            account_headers: self.profile.account_headers(),
            digester,
            other_digester,
            problem_style,
            replay_header,
            outcome_header: self.outcome_header,
            on_store_error: self.on_store_error,
            not_started: self.not_started,
            wait_queues: WaitQueues::new(
                self.max_waiters,
                self.max_waiters_per_key,
                self.max_waiting_bytes,
            ),
            in_flight: InFlight::default(),
            keeper: Keeper::new(),
            room: Room::new(Gauge::metric(observe::detached), self.max_detached),
            withdrawals: Gauge::internal(),
            withdrawing: Semaphore::new(WITHDRAWING),
            max_key_length: self.max_key_length,
            misnamed_key_seen: AtomicBool::new(false),
            response_limits: self.response_limits,
            sealer: self.sealer,
            #[cfg(feature = "admin")]
            admin_writes: self.admin_writes,
            #[cfg(feature = "handlers")]
            plans: crate::engine::core::plan::Plans::new(),
            _alive: Alive::new(),
            warnings: Warnings::default(),
        });
        wake_waiters(&core);
        let engine = Idempotency(core);
        engine.0.begin_metrics();
        Ok(engine)
    }

    /// How this engine's problems look.
    fn problem_style(&self) -> ProblemStyle {
        let mut style = ProblemStyle {
            for_stripe: self.profile == Profile::Stripe,
            challenge: self.challenge.clone(),
            ..ProblemStyle::default()
        };
        if let Some(base) = &self.problem_type_base {
            style.type_base.clone_from(base);
        }
        if let Some(status) = self.mismatch_status.or(self.profile.mismatch_status()) {
            style.mismatch_status = status;
        }
        style
    }

    fn check(&self, defaults: &Policy) -> Result<(), BuildError> {
        if self.caller.is_some() && (self.scope.is_some() || defaults.scope.is_some()) {
            return Err(BuildError::CallerAndScope);
        }
        if let Some(name) = &defaults.name {
            let name = name.as_str().to_owned();
            return Err(BuildError::DefaultName { name });
        }
        if let (Some(lease), Some(max_lifetime)) = (defaults.lease, defaults.max_lifetime)
            && lease > max_lifetime
        {
            return Err(BuildError::LeaseOverLifetime {
                lease,
                max_lifetime,
            });
        }
        if let Some(status) = self.mismatch_status
            && !status.is_client_error()
        {
            return Err(BuildError::MismatchStatus { status });
        }
        if !self
            .challenge
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
        {
            let challenge = self.challenge.clone();
            return Err(BuildError::Challenge { challenge });
        }
        if self.max_detached == 0 {
            return Err(BuildError::NoRoom);
        }
        let timeout = self.store_timeout;
        if timeout.is_zero() || timeout > Duration::from_secs(3600) {
            return Err(BuildError::StoreTimeout { timeout });
        }
        Ok(())
    }
}

fn chosen_store(
    given: Option<Box<dyn ErasedStore>>,
    require_transactions: bool,
) -> Result<Box<dyn ErasedStore>, BuildError> {
    let store = match given {
        Some(store) => store,
        None => default_store().ok_or(BuildError::NoStore)?,
    };
    if require_transactions && store.transactions().is_none() {
        let store = store.name();
        return Err(BuildError::NoTransactions { store });
    }
    Ok(store)
}

/// Has the store notify the engine's waiters.
fn wake_waiters(core: &Arc<Core>) {
    let _entered = core.runtime.enter();
    let wake = Wake::of_engine(core, |core, key| match key {
        Some(key) => core.wait_queues.notify(key),
        None => core.wait_queues.notify_all(),
    });
    let awaited = core.wait_queues.awaited().clone();
    core.store.store().attach(wake.telling(awaited));
}

#[cfg_attr(
    feature = "memory",
    expect(clippy::unnecessary_wraps, reason = "there is none without `memory`")
)]
fn default_store() -> Option<Box<dyn ErasedStore>> {
    #[cfg(feature = "memory")]
    return Some(Box::new(crate::MemoryStore::new()));
    #[cfg(not(feature = "memory"))]
    None
}
