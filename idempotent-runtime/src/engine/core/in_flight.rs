//! The registry of what is in flight in this process: who may claim a key, and which keys are executed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use dashmap::{DashMap, DashSet, Entry};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::lease::Lease;
use crate::{keyed_hash::KeyedHash, observe, scope::StoreKey, store::Token};

/// The requests and executions in flight of one engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Requests between their claim and their outcome.
    admitted: AtomicUsize,
    /// The keys that this process executes, or whose outcome it still has to store.
    leases: DashMap<StoreKey, Arc<Lease>, KeyedHash>,
    /// Tokens whose request goes on or withdraws, on routes that may take leases over.
    own_tokens: DashSet<Token>,
    closing: AtomicBool,
    closed: AtomicBool,
    changed: Notify,
}

/// The right to claim a key. A shutdown waits for as long as it exists.
#[derive(Debug)]
pub(crate) struct Admission {
    in_flight: InFlight,
    lease: Option<Arc<Lease>>,
}

/// A token that this process must not take over, until this is dropped.
#[derive(Debug)]
pub(crate) struct OwnToken {
    in_flight: InFlight,
    token: Token,
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

    /// The execution of this key in this process, if there is one, or its outcome is still to be stored.
    pub(crate) fn lease(&self, key: &StoreKey) -> Option<Arc<Lease>> {
        self.0.leases.get(key).map(|lease| Arc::clone(&lease))
    }

    /// Every lease that this process holds.
    pub(crate) fn leases(&self) -> Vec<Arc<Lease>> {
        let leases = self.0.leases.iter();
        leases.map(|lease| Arc::clone(&lease)).collect()
    }

    /// How many keys this process executes, or has an outcome of to store.
    pub(crate) fn len(&self) -> usize {
        self.0.leases.len()
    }

    /// Marks the token of a claim as this process's own, from before the claim is sent.
    pub(crate) fn own(&self, token: Token) -> OwnToken {
        self.0.own_tokens.insert(token);
        OwnToken {
            in_flight: self.clone(),
            token,
        }
    }

    /// Whether the request that made this token lives in this process and goes on or withdraws.
    pub(crate) fn is_own(&self, token: &Token) -> bool {
        self.0.own_tokens.contains(token)
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
        for lease in self.leases() {
            lease.lose();
        }
        self.0.changed.notify_waiters();
    }

    /// Waits until a shutdown's deadline has passed.
    pub(crate) async fn closed(&self) {
        self.until(|| self.is_closed()).await;
    }

    /// How many claims are held under which nothing has begun. Those that are left at the deadline of a shutdown are given
    /// back by their requests.
    fn not_begun(&self) -> usize {
        let leases = self.0.leases.iter();
        leases.filter(|lease| !lease.has_begun()).count()
    }

    /// Waits until every claim under which nothing has begun was given back. How many are left at the deadline.
    pub(crate) async fn given_back(&self, deadline: Instant) -> usize {
        let none = self.until(|| self.not_begun() == 0);
        match timeout_at(deadline, none).await {
            Ok(()) => 0,
            Err(_) => self.not_begun(),
        }
    }

    /// Waits until this holds, which changes only when an admission ends or the engine closes.
    async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if holds() {
                return;
            }
            changed.await;
        }
    }

    /// How many requests are admitted now.
    pub(crate) fn admitted(&self) -> usize {
        self.0.admitted.load(Ordering::SeqCst)
    }

    /// Waits until nothing is in flight; `false` when the deadline came first.
    pub(crate) async fn idle(&self, deadline: Instant) -> bool {
        let none = self.until(|| self.admitted() == 0);
        timeout_at(deadline, none).await.is_ok() || self.admitted() == 0
    }
}

impl Admission {
    /// This request now executes the key: its duplicates in this process follow it. `false` if another execution of this
    /// process has the key, so that this claim is to be given back.
    pub(crate) fn hold(&mut self, lease: Arc<Lease>) -> bool {
        match self.in_flight.0.leases.entry(lease.held().key) {
            Entry::Occupied(_) => return false,
            Entry::Vacant(entry) => drop(entry.insert(Arc::clone(&lease))),
        }
        if self.in_flight.is_closed() {
            lease.lose();
        }
        self.lease = Some(lease);
        observe::in_flight(1.0);
        true
    }

    /// The execution has ended, and so have its duplicates' reasons to follow it.
    pub(crate) fn let_go(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end();
            self.in_flight
                .0
                .leases
                .remove_if(&lease.held().key, |_, held| Arc::ptr_eq(held, &lease));
            observe::in_flight(-1.0);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.let_go();
        self.in_flight.0.admitted.fetch_sub(1, Ordering::SeqCst);
        if self.in_flight.is_closing() {
            self.in_flight.0.changed.notify_waiters();
        }
    }
}

impl Drop for OwnToken {
    fn drop(&mut self) {
        self.in_flight.0.own_tokens.remove(&self.token);
    }
}
