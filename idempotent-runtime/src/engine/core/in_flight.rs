//! The registry of what is in flight: who may claim a key, and which keys are held.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use dashmap::DashMap;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{observe, scope::StoreKey, store::Token};

/// The requests and executions in flight of one engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Requests between their claim and their outcome.
    admitted: AtomicUsize,
    /// The keys they hold.
    leases: DashMap<Token, StoreKey>,
    closing: AtomicBool,
    closed: AtomicBool,
    changed: Notify,
}

/// The right to claim a key. A shutdown waits for as long as it exists.
#[derive(Debug)]
pub(crate) struct Admission {
    in_flight: InFlight,
    lease: Option<Token>,
}

impl InFlight {
    /// Admits a request, unless the engine is shutting down.
    pub(crate) fn admit(&self) -> Option<Admission> {
        // Counted before the flag is read, and `close` sets the flag before it reads the count: at least one of the two
        // sees the other.
        self.0.admitted.fetch_add(1, Ordering::SeqCst);
        let admission = Admission {
            in_flight: self.clone(),
            lease: None,
        };
        (!self.is_closing()).then_some(admission)
    }

    /// Whether the engine admits nothing any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::SeqCst)
    }

    /// Admits nothing from now on.
    pub(crate) fn close(&self) {
        self.0.closing.store(true, Ordering::SeqCst);
    }

    /// Whether the shutdown is over, for waiting requests too.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// The shutdown's deadline has passed: no lease is renewed any more.
    pub(crate) fn finish_closing(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
    }

    /// How many requests are admitted now.
    pub(crate) fn admitted(&self) -> usize {
        self.0.admitted.load(Ordering::SeqCst)
    }

    /// The leases that are held now.
    pub(crate) fn leases(&self) -> Vec<(StoreKey, Token)> {
        let leases = self.0.leases.iter();
        leases.map(|lease| (*lease.value(), *lease.key())).collect()
    }

    /// Waits until nothing is in flight; `false` when the deadline came first.
    pub(crate) async fn idle(&self, deadline: Instant) -> bool {
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
    /// This request now holds the key.
    pub(crate) fn hold(&mut self, key: StoreKey, token: Token) {
        self.in_flight.0.leases.insert(token, key);
        self.lease = Some(token);
        observe::in_flight(1.0);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(token) = self.lease {
            self.in_flight.0.leases.remove(&token);
            observe::in_flight(-1.0);
        }
        self.in_flight.0.admitted.fetch_sub(1, Ordering::SeqCst);
        if self.in_flight.is_closing() {
            self.in_flight.0.changed.notify_waiters();
        }
    }
}
