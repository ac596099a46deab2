//! The lease of one execution, as the keeper, the run and the duplicates in this process see it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::room::PlaceSlot;
use crate::{backoff::nearly, execution::Execution, fingerprint::Fingerprint, store::Held};

/// A lease that this process holds.
///
/// The [keeper](super::keeper) renews it by a heartbeat, every third of the lease, jittered, so that two renewals may fail
/// before it lapses. The first one is due when a third has passed: a handler that is shorter pays nothing.
pub(crate) struct Lease {
    held: Held,
    fingerprint: Fingerprint,
    execution: Execution,
    /// When the acknowledged acquire was sent. By this process's clock the lease lapses no later than by the store's.
    acquired: Instant,
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
    place: Arc<PlaceSlot>,
    /// Where the renewals run.
    runtime: OnceLock<Handle>,
}

impl Lease {
    /// A lease whose acknowledged acquire was sent at `acquired`.
    pub(crate) fn new(
        held: Held,
        fingerprint: Fingerprint,
        execution: Execution,
        acquired: Instant,
        max_lifetime: Duration,
        place: Arc<PlaceSlot>,
    ) -> Arc<Self> {
        execution.leased_until(acquired + held.lease);
        Arc::new(Self {
            held,
            fingerprint,
            execution,
            acquired,
            end_of_life: acquired + max_lifetime,
            due: AtomicU64::new(micros(interval(held.lease))),
            renewing: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            in_doubt: AtomicBool::new(false),
            place,
            runtime: OnceLock::new(),
        })
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn execution(&self) -> &Execution {
        &self.execution
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

    /// Whether the lease of the acknowledged acquire still lasts, counted from when that was sent.
    pub(crate) fn is_first_lease(&self) -> bool {
        self.acquired.elapsed() < self.held.lease
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
        self.execution
            .lease_left()
            .max(Duration::from_secs(1).min(self.held.lease))
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
            self.execution.leased_until(sent + self.held.lease);
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

    pub(super) fn begin_renewal(&self) {
        self.renewing.store(true, Ordering::SeqCst);
    }

    /// The execution is older than its `max_lifetime`; `true` the first time.
    pub(super) fn set_overdue(&self) -> bool {
        let first = !self.overdue.swap(true, Ordering::SeqCst);
        if first {
            self.place.overdue();
        }
        first
    }

    /// Another execution has taken the key over, or a shutdown has given it away.
    pub(super) fn lose(&self) {
        self.end();
        self.execution.lose_lease();
    }

    /// No renewal after this.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// About a third of the lease; at least 4 ms, so that no lease makes a busy loop.
fn interval(lease: Duration) -> Duration {
    nearly(lease / 3).max(Duration::from_millis(4))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("execution", &self.execution)
            .finish_non_exhaustive()
    }
}
