//! What runs now, and how it ends at shutdown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::Idempotency;
use crate::{
    observe,
    scope::StoreKey,
    store::{Token, Write},
};

/// At most so many keys are marked unknown at the same time when a shutdown's deadline passes.
const ABANDONED_AT_ONCE: usize = 64;

/// Longest deadline that a clock can add; whoever gives more means "for ever".
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// The executions of one engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Requests between their claim and their outcome.
    admitted: AtomicUsize,
    /// Those that own a key.
    leases: DashMap<Token, StoreKey>,
    closing: AtomicBool,
    closed: AtomicBool,
    changed: Notify,
}

/// The right to claim a key; while it exists, a shutdown waits.
#[derive(Debug)]
pub(crate) struct Admission {
    running: Running,
    lease: Option<Token>,
}

impl Running {
    /// Admits a request, unless the engine is shutting down.
    pub(crate) fn admit(&self) -> Option<Admission> {
        // Counted before the flag is read, as `close` sets the flag before it reads the count: one of the two
        // sees the other.
        self.0.admitted.fetch_add(1, Ordering::SeqCst);
        let admission = Admission {
            running: self.clone(),
            lease: None,
        };
        (!self.is_closing()).then_some(admission)
    }

    /// Whether no new work is taken.
    pub(crate) fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::SeqCst)
    }

    fn close(&self) {
        self.0.closing.store(true, Ordering::SeqCst);
    }

    /// Whether the shutdown is over, for those who wait too.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    fn admitted(&self) -> usize {
        self.0.admitted.load(Ordering::SeqCst)
    }

    /// Whether everything ended before the deadline.
    async fn idle(&self, deadline: Instant) -> bool {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if self.admitted() == 0 {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return self.admitted() == 0;
            }
        }
    }
}

impl Admission {
    /// This request owns the key now.
    pub(crate) fn owns(&mut self, key: StoreKey, token: Token) {
        self.running.0.leases.insert(token, key);
        self.lease = Some(token);
        observe::in_flight(1.0);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(token) = self.lease {
            self.running.0.leases.remove(&token);
            observe::in_flight(-1.0);
        }
        self.running.0.admitted.fetch_sub(1, Ordering::SeqCst);
        if self.running.is_closing() {
            self.running.0.changed.notify_waiters();
        }
    }
}

/// What [`Idempotency::shutdown`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Executions that were running when the shutdown began and ended by themselves before the deadline. What the
    /// server's own shutdown had waited for is not among them.
    pub drained: usize,
    /// Executions still running at the deadline, whose keys are now marked: outcome unknown.
    pub unknown: usize,
    /// Executions still running whose key could not be marked, because the store did not answer. They become
    /// unknown by themselves when their lease lapses.
    pub unconfirmed: usize,
}

impl Idempotency {
    /// Ends this engine: no new work, then up to `deadline` for what runs, then the rest is marked unknown.
    ///
    /// 1. From now on requests that carry a key get `overloaded` (503). Requests without one are not the
    ///    engine's business: the server's own shutdown ends those.
    /// 2. Running executions, also those whose client has gone and streams still being recorded, are given
    ///    until the deadline. Duplicates go on waiting for them.
    /// 3. At the deadline every execution still running is abandoned: its key stays claimed, and a retry gets
    ///    `outcome_unknown` (or executes again where the route says `on_crash = "retry"`). Nothing is released.
    ///    The handlers themselves are not stopped; one that completes before the process ends is stored after all.
    /// 4. Whoever still waits gets `overloaded`.
    ///
    /// A server's graceful shutdown does not wait for executions whose client has gone: call both, the server's
    /// first. Calling this again is harmless.
    ///
    /// # Cancellation
    ///
    /// Dropped half-way, the engine stays closed to new work; nothing else is lost.
    pub async fn shutdown(&self, deadline: Duration) -> Shutdown {
        let running = self.running();
        running.close();
        let before = running.admitted();
        let idle = running.idle(Instant::now() + deadline.min(LONGEST)).await;
        let mut report = Shutdown {
            drained: before,
            unknown: 0,
            unconfirmed: 0,
        };
        // Before anything is marked: no heartbeat renews what is marked.
        running.0.closed.store(true, Ordering::SeqCst);
        if !idle {
            self.abandon_all(&mut report).await;
            report.drained = before.saturating_sub(running.admitted());
            tracing::warn!(
                unknown = report.unknown,
                unconfirmed = report.unconfirmed,
                "executions were still running at the shutdown deadline; their outcomes are unknown"
            );
        }
        self.wait_room().close();
        report
    }

    /// Marks every lease that is still held.
    async fn abandon_all(&self, report: &mut Shutdown) {
        let leases: Vec<_> = self
            .running()
            .0
            .leases
            .iter()
            .map(|lease| (*lease.value(), *lease.key()))
            .collect();
        let mut tasks = JoinSet::new();
        let mut count = |written: Option<Write>| match written {
            Some(Write::Applied) => report.unknown += 1,
            // It ended in the meantime: its own last write came first.
            Some(Write::Fenced | Write::Missing) => {}
            None => report.unconfirmed += 1,
        };
        for (key, token) in leases {
            if tasks.len() >= ABANDONED_AT_ONCE {
                count(
                    tasks
                        .join_next()
                        .await
                        .and_then(|joined| joined.ok().flatten()),
                );
            }
            let engine = self.clone();
            tasks.spawn(async move { engine.abandon(key, token).await });
        }
        while let Some(joined) = tasks.join_next().await {
            count(joined.ok().flatten());
        }
    }

    async fn abandon(&self, key: StoreKey, token: Token) -> Option<Write> {
        match self.ops().abandon(&key, &token).await {
            Ok(written) => {
                self.wait_room().poke(&key);
                Some(written)
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    key = %key,
                    "a running execution could not be marked unknown; it will be once its lease lapses"
                );
                None
            }
        }
    }
}
