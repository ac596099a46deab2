//! The keeper of leases: renews every lease of this process, by a heartbeat that does not depend on the handlers' tasks.
//!
//! A handler may block its thread (`std::thread::sleep`, a long computation, a synchronous client), and may do so from its
//! first instruction on. Two things follow on a multi-thread runtime, both seen in tests: a task that a worker has just
//! woken waits in that worker's own slot, where no other worker finds it; and nobody polls timers and sockets as long as
//! the other workers are parked. So there the schedule is kept by a thread of the engine's own, which hands each renewal to
//! the runtime from outside: that wakes a parked worker. On a current-thread runtime nothing can run beside a handler that
//! blocks, so a task is enough, and it follows a paused clock.
//!
//! 1. A lease is registered before its handler is called. That starts no timer: the thread ticks several times per lease
//!    while there are any, and sleeps when there were none for a whole tick.
//! 2. A renewal is a task of its own, on the runtime of its execution or the one that was chosen: a store that does not answer for one key delays no
//!    other.
//! 3. An execution older than its `max_lifetime` is overdue, also if it has lost its lease: it is logged and counted, its
//!    lease is left to lapse, and it gives its place up.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use tokio::{
    runtime::RuntimeFlavor,
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{Core, lease::Lease};
use crate::{observe, store::Write};

/// The longest and the shortest time between two ticks of the thread.
const TICKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The schedule of one engine.
#[derive(Debug)]
pub(crate) struct Keeper {
    epoch: Instant,
    thread: OnceLock<Option<Thread>>,
    /// The shortest lease so far, in microseconds.
    shortest: AtomicU64,
    /// Whether a lease was registered since the last tick.
    active: AtomicBool,
    /// Whether the thread sleeps until it is woken.
    asleep: AtomicBool,
    /// Whether the task of a current-thread runtime runs.
    running: AtomicBool,
    /// When that task wakes, in microseconds after `epoch`; the largest number while it sleeps without an end.
    next_wake: AtomicU64,
    wake: Arc<Notify>,
}

impl Keeper {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            thread: OnceLock::new(),
            shortest: AtomicU64::new(u64::MAX),
            active: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            running: AtomicBool::new(false),
            next_wake: AtomicU64::new(u64::MAX),
            wake: Arc::new(Notify::new()),
        }
    }

    /// Has the keeper look at once, as when the engine is closed.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
        if let Some(Some(thread)) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Wakes the task if a renewal is due before it would wake by itself.
    fn due(&self, at: Instant) {
        if self.micros(at) < self.next_wake.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.epoch))
    }

    /// Twelve ticks a lease: a renewal is due after four, and the next one, should that fail, a tick later.
    fn tick(&self) -> Duration {
        let shortest = Duration::from_micros(self.shortest.load(Ordering::Relaxed));
        (shortest / 12).clamp(TICKS.0, TICKS.1)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Has the keeper renew this lease, which is registered already.
pub(crate) fn keep(core: &Arc<Core>, lease: &Lease) {
    // Without a runtime of tokio's there is nothing to renew with: a store that needs none answers at once.
    let Some(runtime) = core.runtime.handle() else {
        return;
    };
    let by_task = matches!(runtime.runtime_flavor(), RuntimeFlavor::CurrentThread);
    lease.runs_on(runtime);
    if by_task || !keep_by_thread(core, lease) {
        keep_by_task(core, lease);
    }
}

/// `false` if there is no thread to be had.
fn keep_by_thread(core: &Arc<Core>, lease: &Lease) -> bool {
    let keeper = &core.keeper;
    let length = micros(lease.held().lease);
    let shorter = length < keeper.shortest.load(Ordering::Relaxed);
    if shorter {
        keeper.shortest.fetch_min(length, Ordering::SeqCst);
    }
    if !keeper.active.load(Ordering::SeqCst) {
        keeper.active.store(true, Ordering::SeqCst);
    }
    let started = keeper.thread.get_or_init(|| {
        let engine = Arc::downgrade(core);
        let thread = thread::Builder::new().name("idempotent-keeper".to_owned());
        match thread.spawn(move || tick_until_the_end(&engine)) {
            Ok(started) => Some(started.thread().clone()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "no thread for the heartbeat: a handler that blocks its thread may lose its lease");
                None
            }
        }
    });
    let Some(thread) = started else { return false };
    if shorter
        || (keeper.asleep.load(Ordering::SeqCst) && keeper.asleep.swap(false, Ordering::SeqCst))
    {
        thread.unpark();
    }
    true
}

fn tick_until_the_end(engine: &Weak<Core>) {
    loop {
        // Upgraded for one tick at a time, so that the keeper does not keep an engine alive that nothing else holds.
        let Some(core) = engine.upgrade() else { return };
        let keeper = &core.keeper;
        let was_active = keeper.active.swap(false, Ordering::SeqCst);
        let leases = renew_due(&core).0;
        let mut pause = Some(keeper.tick());
        if !leases && !was_active {
            // Set before it looks again: a lease that is registered meanwhile sees that the thread sleeps, or is seen.
            keeper.asleep.store(true, Ordering::SeqCst);
            if keeper.active.load(Ordering::SeqCst) {
                keeper.asleep.store(false, Ordering::SeqCst);
            } else {
                pause = None;
            }
        }
        drop(core);
        match pause {
            Some(pause) => thread::park_timeout(pause),
            None => thread::park(),
        }
    }
}

fn keep_by_task(core: &Arc<Core>, lease: &Lease) {
    if !core.keeper.running.load(Ordering::SeqCst)
        && !core.keeper.running.swap(true, Ordering::SeqCst)
    {
        let running = Running(Arc::downgrade(core));
        let wake = Arc::clone(&core.keeper.wake);
        // The keeper belongs to no request: neither span nor subscriber of the first one is its own.
        core.runtime.spawn(async move {
            let running = running;
            wake_until_the_end(&running.0, &wake).await;
        });
    }
    if let Some(at) = lease.next_renewal() {
        core.keeper.due(at);
    }
}

/// Says that the task runs, until it ends or its runtime drops it.
struct Running(Weak<Core>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade() {
            core.keeper.next_wake.store(u64::MAX, Ordering::SeqCst);
            core.keeper.running.store(false, Ordering::SeqCst);
        }
    }
}

async fn wake_until_the_end(engine: &Weak<Core>, wake: &Notify) {
    loop {
        let mut woken = std::pin::pin!(wake.notified());
        woken.as_mut().enable();
        // Upgraded for one round at a time, as above.
        let next = {
            let Some(core) = engine.upgrade() else { return };
            // Set before the registry is read: a lease that is registered later compares itself with this.
            core.keeper.next_wake.store(u64::MAX, Ordering::SeqCst);
            let (_, next) = renew_due(&core);
            if let Some(at) = next {
                let at = core.keeper.micros(at);
                core.keeper.next_wake.store(at, Ordering::SeqCst);
            }
            next
        };
        match next {
            Some(at) => {
                // Both ends mean the same: look again.
                let _ = timeout_at(at, woken).await;
            }
            None => woken.await,
        }
    }
}

/// Starts every renewal that is due. Whether there are leases, and when the next renewal is due.
fn renew_due(core: &Arc<Core>) -> (bool, Option<Instant>) {
    let now = Instant::now();
    let mut next: Option<Instant> = None;
    let leases = core.in_flight.leases();
    for lease in &leases {
        if now >= lease.end_of_life() {
            overdue(lease);
            continue;
        }
        // A lease that is lost, or under renewal, is looked at again when it may be overdue.
        let due = lease.next_renewal().unwrap_or(lease.end_of_life());
        let due = due.min(lease.end_of_life());
        if due > now {
            next = Some(next.map_or(due, |next| next.min(due)));
            continue;
        }
        if let Some(runtime) = lease.runtime()
            && lease.begin_renewal()
        {
            let renewal = Renewal(Arc::clone(lease));
            runtime.spawn(renew(Arc::clone(core), renewal));
        }
    }
    (!leases.is_empty(), next)
}

fn overdue(lease: &Lease) {
    if lease.set_overdue() {
        observe::overdue();
        tracing::error!(
            key = %lease.held().key,
            "an execution is older than its max_lifetime: its lease is no longer renewed; its outcome is still stored \
             when it ends"
        );
    }
}

/// A renewal that has begun. Has the next one tried if it ends in any unforeseen way, as without having been polled.
struct Renewal(Arc<Lease>);

impl Drop for Renewal {
    fn drop(&mut self) {
        if self.0.is_renewing() {
            self.0.retry_renewal();
        }
    }
}

async fn renew(core: Arc<Core>, renewal: Renewal) {
    let lease = &renewal.0;
    let sent = Instant::now();
    let next = match core.store.renew(lease.held()).await {
        Ok(Write::Applied) => lease.renewed(sent),
        // The last write of the execution came first, or is on its way.
        Ok(Write::Fenced | Write::Missing) if lease.is_ending() => lease.retry_renewal(),
        Ok(Write::Fenced | Write::Missing) => {
            tracing::warn!(
                key = %lease.held().key,
                "the lease was taken over: another execution owns the key now"
            );
            lease.lose();
            return;
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, key = %lease.held().key, "the lease could not be renewed; trying again");
            lease.retry_renewal()
        }
    };
    core.keeper.due(next);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
