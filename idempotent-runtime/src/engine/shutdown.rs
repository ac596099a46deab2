//! The end of an engine: no new work, a deadline for what is in flight, then the rest is marked unknown.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::core::{Core, Idempotency};
use crate::{
    scope::StoreKey,
    store::{Token, Write},
};

/// The longest deadline that a clock can add. A caller that gives a longer one wants no deadline.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// What [`Idempotency::shutdown`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Executions that were in flight when the shutdown began and ended by themselves before the deadline. Those that the
    /// server's own shutdown had waited for before are not counted.
    pub drained: usize,
    /// Executions still in flight at the deadline, whose keys are now marked: outcome unknown.
    pub unknown: usize,
    /// Executions still in flight whose key could not be marked, because the store did not answer. They become
    /// unknown by themselves when their lease lapses.
    pub unconfirmed: usize,
    /// Claims in doubt that were still being withdrawn at the deadline: an acquire of theirs got no answer, and a copy of it
    /// may still arrive. That goes on for as long as the process lives. A copy that arrives later claims its key for nobody,
    /// until the lease lapses: retries then hear `outcome_unknown`, or execute where the route says `on_crash = "retry"`.
    pub withdrawing: usize,
}

impl Idempotency {
    /// Ends this engine: no new executions, then up to `deadline` for those in flight, then the rest is marked unknown.
    ///
    /// 1. From now on requests that carry a key get `overloaded` (503). Requests without one do not concern the
    ///    engine: the server's own shutdown ends those.
    /// 2. Executions in flight, also detached ones and streams that are still being recorded, have until the deadline.
    ///    Duplicates go on waiting for them.
    /// 3. At the deadline every execution still in flight is abandoned: its key stays claimed, and a retry gets
    ///    `outcome_unknown` (or executes again where the route says `on_crash = "retry"`). Nothing that began is released.
    ///    A request that still waits for the service behind an [`IdempotencyLayer`](crate::IdempotencyLayer) has begun
    ///    nothing: it gives its key back and gets `overloaded`. The handlers themselves are not stopped; an outcome that is completed before the process ends is stored.
    /// 4. Requests that still wait get `overloaded`.
    /// 5. Claims in doubt go on being withdrawn for what is left of the deadline. That takes until no copy of their acquire
    ///    can arrive any more ([`LONGEST_DELAY`](crate::store::LONGEST_DELAY)), so a shutdown soon after the store did not
    ///    answer takes its whole deadline.
    ///
    /// It ends within the deadline plus one store time-out, however many executions there are and whether or not the store
    /// answers.
    ///
    /// A server's graceful shutdown does not wait for detached executions: call both, the server's first. Calling this
    /// again is harmless.
    ///
    /// # Cancellation
    ///
    /// If this future is dropped before its end, the engine stays closed to new requests; nothing else is lost.
    pub async fn shutdown(&self, deadline: Duration) -> Shutdown {
        let in_flight = &self.0.in_flight;
        in_flight.close();
        let before = in_flight.admitted();
        let deadline = Instant::now() + deadline.min(LONGEST);
        // The last write of a detached execution comes before the end of its task, so both are waited for: when this
        // returns, no task is left that is still counted.
        let idle = in_flight.idle(deadline).await && self.0.room.detached().none(deadline).await;
        let mut report = Shutdown {
            drained: before,
            unknown: 0,
            unconfirmed: 0,
            withdrawing: 0,
        };
        if !idle {
            report.drained = before.saturating_sub(in_flight.admitted());
        }
        // Before anything is marked, so that no heartbeat renews what is marked.
        in_flight.finish_closing();
        self.0.keeper.wake();
        if !idle {
            abandon_all(&self.0, &mut report).await;
            tracing::warn!(
                unknown = report.unknown,
                unconfirmed = report.unconfirmed,
                "executions were still in flight at the shutdown deadline; their outcomes are unknown"
            );
        }
        // Before the withdrawals: a waiter may leave one behind.
        self.0.wait_queues.close();
        if !self.0.withdrawals.none(deadline).await {
            report.withdrawing = self.0.withdrawals.count();
            tracing::warn!(
                withdrawing = report.withdrawing,
                "claims in doubt were still being withdrawn at the shutdown deadline; an acquire that arrives later blocks \
                 its key"
            );
        }
        report
    }
}

/// Marks every key under which something has begun, all at the same time, while the requests of the others give theirs back.
/// Both for at most one store time-out: however many they are, and however dead the store is, the shutdown ends. What is not
/// marked or given back by then may be so later, or becomes unknown when its lease lapses.
async fn abandon_all(core: &Arc<Core>, report: &mut Shutdown) {
    let deadline = Instant::now() + core.store.store_timeout();
    let mut tasks = JoinSet::new();
    let leases = core.in_flight.leases().into_iter();
    for lease in leases.filter(|lease| lease.has_begun()) {
        let core = Arc::clone(core);
        tasks.spawn(async move { abandon(&core, lease.held().key, lease.held().token).await });
    }
    while let Ok(Some(joined)) = timeout_at(deadline, tasks.join_next()).await {
        match joined.ok().flatten() {
            Some(Write::Applied) => report.unknown += 1,
            // It ended in the meantime: its own last write came first.
            Some(Write::Fenced | Write::Missing) => {}
            None => report.unconfirmed += 1,
        }
    }
    report.unconfirmed += tasks.len();
    tasks.detach_all();
    report.unconfirmed += core.in_flight.given_back(deadline).await;
}

async fn abandon(core: &Core, key: StoreKey, token: Token) -> Option<Write> {
    match core.store.abandon(&key, &token).await {
        Ok(written) => {
            core.wait_queues.notify(&key);
            Some(written)
        }
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                key = %key,
                "an execution in flight could not be marked unknown; it becomes unknown when its lease lapses"
            );
            None
        }
    }
}
