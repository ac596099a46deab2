//! One execution under its lease, as the handler, the keeper, the run and the duplicates in this process see it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use super::{detach_state::DetachState, services::Services, slot::Slot};
use crate::{
    backoff::nearly,
    fingerprint::Fingerprint,
    key::IdempotencyKey,
    response::Binding,
    route::{Routing, Target},
    scope::Digester,
    step::log::{StepAccess, Steps},
    store::{Claim, Held},
};

/// How often it is looked whether the last renewal has ended.
const DRAIN: Duration = Duration::from_millis(1);

/// An execution and the lease that this process holds for it. One allocation: the handler's
/// [`Execution`](crate::Execution) is a handle on it.
///
/// The [keeper](super::keeper) renews it by a heartbeat, every third of the lease, jittered, so that two renewals may fail
/// before it lapses. The first one is due when a third has passed: a handler that is shorter pays nothing.
pub(crate) struct Lease {
    held: Held,
    fingerprint: Fingerprint,
    key: IdempotencyKey,
    attempt: u32,
    /// Makes the keys for downstream services, and keeps the steps.
    services: Arc<Services>,
    /// What this process knows of the steps.
    steps: Steps,
    /// The request that is executed.
    request: Target,
    /// When the acknowledged acquire was sent. By this process's clock the lease lapses no later than by the store's.
    acquired: Instant,
    /// When it lapses, in microseconds after `acquired`; zero once it is lost.
    lapses: AtomicU64,
    /// Whether somebody behind the engine asked for the execution, or read the body of the request.
    touched: AtomicBool,
    /// No renewal after this: the execution is overdue.
    end_of_life: Instant,
    /// When the next renewal is due, in microseconds after `acquired`.
    due: AtomicU64,
    /// A renewal is under way.
    renewing: AtomicBool,
    /// The handler or the recovery function was called, or is about to be.
    begun: AtomicBool,
    /// The execution has ended, or has lost its lease: nothing is renewed any more.
    ended: AtomicBool,
    overdue: AtomicBool,
    /// The last write of the execution is on its way, or was.
    ending: AtomicBool,
    /// The execution has ended and its outcome could not be stored yet.
    in_doubt: AtomicBool,
    detach: Detach,
    /// Where the handler's transaction is, on a route that has one.
    transaction: Option<Arc<Slot>>,
    /// Where the renewals run.
    runtime: OnceLock<Handle>,
}

/// What is executed.
pub(crate) struct Executed {
    pub(crate) key: IdempotencyKey,
    pub(crate) attempt: u32,
    pub(crate) request: Target,
    pub(crate) detach: Detach,
    pub(crate) transaction: Option<Arc<Slot>>,
}

/// What the execution and its connection know of each other.
pub(crate) enum Detach {
    /// The request waited before it executed.
    Shared(Arc<DetachState>),
    Own(DetachState),
}

impl Lease {
    /// A lease whose acknowledged acquire was sent at `acquired`.
    pub(crate) fn new(
        claim: &Claim,
        executed: Executed,
        services: Arc<Services>,
        acquired: Instant,
        max_lifetime: Duration,
    ) -> Self {
        Self {
            held: claim.held(),
            fingerprint: claim.fingerprint,
            key: executed.key,
            attempt: executed.attempt,
            services,
            steps: Steps::default(),
            request: executed.request,
            acquired,
            lapses: AtomicU64::new(micros(claim.lease)),
            touched: AtomicBool::new(false),
            end_of_life: acquired + max_lifetime,
            due: AtomicU64::new(first_interval(claim)),
            renewing: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            in_doubt: AtomicBool::new(false),
            detach: executed.detach,
            transaction: executed.transaction,
            runtime: OnceLock::new(),
        }
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Which record, and of which request.
    pub(crate) fn binding(&self) -> Binding {
        Binding {
            key: self.held.key,
            fingerprint: self.fingerprint,
        }
    }

    pub(crate) fn key(&self) -> &IdempotencyKey {
        &self.key
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A key for the next service, whose name or purpose is `label`.
    pub(crate) fn downstream_key(&self, label: &str) -> String {
        self.services.digester.downstream_key(self.held.key, label)
    }

    /// A key for the service that this step calls.
    pub(crate) fn step_key(&self, step: &str) -> String {
        self.services.digester.step_key(self.held.key, step)
    }

    /// What makes keys and seals what is stored.
    #[cfg(feature = "sql")]
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// What this process knows of the steps, and where they are kept.
    pub(crate) fn steps(&self) -> (&Steps, StepAccess) {
        let access = StepAccess {
            services: Arc::clone(&self.services),
            held: self.held,
            binding: self.binding(),
            is_first_attempt: self.attempt == 1,
            in_transaction: self.transaction().is_some(),
        };
        (&self.steps, access)
    }

    /// The method of the request that is executed.
    pub(crate) fn method(&self) -> &Method {
        self.request.method()
    }

    /// Whether a caller step let the request in.
    pub(crate) fn has_caller(&self) -> bool {
        self.request.has_caller()
    }

    /// Whether it is of the engine with these digests.
    pub(crate) fn is_of(&self, digester: &Arc<Digester>) -> bool {
        Arc::ptr_eq(&self.services.digester, digester)
    }

    /// Whether this execution serves this request, in which its route finds this key.
    pub(crate) fn serves<B>(
        &self,
        request: &Request<B>,
        routing: &Routing,
        key: Option<&IdempotencyKey>,
    ) -> bool {
        self.request.is_of(request, routing)
            // A layer may have found the key elsewhere: without one of its own the request is the same.
            && key.is_none_or(|key| key.is_sent_for(&self.key))
    }

    /// Somebody behind the engine looked at the request, or nobody has from now on.
    pub(crate) fn set_touched(&self, touched: bool) {
        self.touched.store(touched, Ordering::Relaxed);
    }

    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// Whether the lease has lapsed or was lost, by this process's clock.
    pub(crate) fn is_lost(&self) -> bool {
        let age = self.acquired.elapsed().as_micros();
        age >= u128::from(self.lapses.load(Ordering::Acquire))
    }

    /// From here on something may have been executed.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
    }

    /// Whether something may have been executed. Until then the request gives its claim back by itself when the engine is
    /// closed.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Whether the lease of the acknowledged acquire still lasts, counted from when that was sent, and was not lost.
    pub(crate) fn is_first_lease(&self) -> bool {
        let age = self.acquired.elapsed();
        age < self.held.lease && age.as_micros() < u128::from(self.lapses.load(Ordering::Acquire))
    }

    /// When the lease of the acknowledged acquire ends, counted from when that was sent.
    pub(crate) fn end_of_first(&self) -> Instant {
        // A lease is at most a hundred years.
        self.acquired + self.held.lease
    }

    /// When the heartbeat ends.
    pub(crate) fn end_of_life(&self) -> Instant {
        self.end_of_life
    }

    /// What is left of the lease by this process's clock, and at least a moment: an execution of this process is in flight
    /// whatever the clock says.
    pub(crate) fn remaining(&self) -> Duration {
        let lapses = Duration::from_micros(self.lapses.load(Ordering::Acquire));
        let left = lapses.saturating_sub(self.acquired.elapsed());
        left.max(Duration::from_secs(1).min(self.held.lease))
    }

    pub(crate) fn detach_state(&self) -> &DetachState {
        match &self.detach {
            Detach::Shared(state) => state,
            Detach::Own(state) => state,
        }
    }

    /// Where the handler's transaction is, on a route that has one.
    pub(crate) fn transaction(&self) -> Option<&Arc<Slot>> {
        self.transaction.as_ref()
    }

    /// Renews the lease no more, and waits until the renewal that is under way has ended.
    pub(crate) async fn stop_renewals(&self) {
        self.end();
        while self.is_renewing() {
            sleep(DRAIN).await;
        }
    }

    /// Whether the execution has ended and its outcome could not be stored yet.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::SeqCst)
    }

    pub(crate) fn set_in_doubt(&self) {
        self.in_doubt.store(true, Ordering::SeqCst);
    }

    /// When the next renewal is due; `None` if none is, or one is under way.
    pub(super) fn next_renewal(&self) -> Option<Instant> {
        let idle = !self.renewing.load(Ordering::SeqCst)
            && !self.ended.load(Ordering::SeqCst)
            && !self.overdue.load(Ordering::SeqCst);
        idle.then(|| self.acquired + Duration::from_micros(self.due.load(Ordering::SeqCst)))
    }

    /// The renewals of this lease have begun anew: the next one is due in `interval`.
    pub(super) fn renewed(&self, sent: Instant) -> Instant {
        if !self.ended.load(Ordering::SeqCst) {
            let until = sent + self.held.lease;
            let lapses = until.saturating_duration_since(self.acquired);
            self.lapses.store(micros(lapses), Ordering::Release);
        }
        self.schedule(sent + interval(self.held.lease))
    }

    /// A renewal failed: the next one comes sooner.
    pub(super) fn retry_renewal(&self) -> Instant {
        self.schedule(Instant::now() + interval(self.held.lease) / 4)
    }

    fn schedule(&self, at: Instant) -> Instant {
        let due = at.saturating_duration_since(self.acquired);
        self.due.store(micros(due), Ordering::SeqCst);
        self.renewing.store(false, Ordering::SeqCst);
        at
    }

    /// The execution runs on this runtime, and so do its renewals.
    pub(super) fn runs_on(&self, runtime: Handle) {
        // An execution has one runtime; a second call is for the same one.
        let _ = self.runtime.set(runtime);
    }

    pub(super) fn runtime(&self) -> Option<&Handle> {
        self.runtime.get()
    }

    pub(super) fn is_renewing(&self) -> bool {
        self.renewing.load(Ordering::SeqCst)
    }

    /// The last write of the execution is about to be sent: a renewal that is fenced from now on says nothing.
    pub(crate) fn begin_last_write(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// A renewal begins, unless the execution has ended meanwhile: whoever ends it looks whether one is under way after
    /// that, so that one of the two sees the other.
    pub(super) fn begin_renewal(&self) -> bool {
        self.renewing.store(true, Ordering::SeqCst);
        let ended = self.ended.load(Ordering::SeqCst);
        if ended {
            self.renewing.store(false, Ordering::SeqCst);
        }
        !ended
    }

    /// The execution is older than its `max_lifetime`; `true` the first time.
    pub(super) fn set_overdue(&self) -> bool {
        let first = !self.overdue.swap(true, Ordering::SeqCst);
        if first {
            self.detach_state().overdue();
        }
        first
    }

    /// Another execution has taken the key over, or a shutdown has given it away.
    pub(crate) fn lose(&self) {
        self.end();
        self.lapses.store(0, Ordering::Release);
    }

    /// No renewal after this.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// So that no lease makes a busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(4);

/// About a third of the lease.
fn interval(lease: Duration) -> Duration {
    nearly(lease / 3).max(SHORTEST_INTERVAL)
}

/// The first one, in microseconds. The token is random already: nearly every execution ends before this, and needs no
/// random number of its own.
fn first_interval(claim: &Claim) -> u64 {
    let third = micros(claim.lease) / 3;
    let [jitter, ..] = claim.token.as_bytes();
    (third - third / 10 + third / 5 / 255 * u64::from(*jitter)).max(micros(SHORTEST_INTERVAL))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.held.key)
            .field("attempt", &self.attempt)
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}
