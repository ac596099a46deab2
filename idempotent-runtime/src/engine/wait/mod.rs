//! Waiting for the outcome of another execution.
//!
//! Subscribe, then read, then wait. A waiter first takes a [ticket](Ticket) in the key's queue; then the leader of the
//! queue reads the store, and only then sleeps. So a completion either finds the queue to publish in, or happened before
//! the leader's first read. The leader polls whether or not notifications arrive: if all of them are lost, waiting takes
//! longer, and still ends. A waiter that leaves changes no record.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use dashmap::DashMap;
use tokio::time::{Instant, timeout_at};

use crate::{
    backoff::Backoff,
    fingerprint::Fingerprint,
    observe,
    scope::StoreKey,
    store::{Awaited, AwaitedKeys, Outcome},
    sync::Arc,
};

mod queue;

pub(super) use queue::Turn;
use queue::{Ticket, WaitQueue};

/// What ends the waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The execution of this request completed.
    Completed {
        fingerprint: Fingerprint,
        outcome: Outcome,
    },
    /// Its lease lapsed, and the route does not execute again.
    Unknown { fingerprint: Fingerprint },
    /// The engine shut down.
    ShutDown,
}

/// The queues of one engine, by key.
#[derive(Debug)]
pub(crate) struct WaitQueues {
    queues: DashMap<StoreKey, Arc<Entry>>,
    waiters: AtomicUsize,
    /// The bytes of the bodies that waiting requests keep.
    bytes: AtomicUsize,
    /// The keys of the queues, for a store that notifies.
    awaited: AwaitedKeys,
    most: usize,
    most_per_key: usize,
    most_bytes: usize,
}

/// A queue and its number of waiters, which changes only under the entry's lock.
pub(crate) struct Entry {
    queue: Arc<WaitQueue<Verdict>>,
    waiters: AtomicUsize,
    _awaited: Awaited,
}

/// A request that waits for a key.
pub(crate) struct Waiter<'a> {
    queues: &'a WaitQueues,
    key: StoreKey,
    ticket: Option<Ticket<Verdict>>,
    entry: Arc<Entry>,
    bytes: usize,
    backoff: Backoff,
}

impl WaitQueues {
    pub(crate) fn new(most: usize, most_per_key: usize, most_bytes: usize) -> Self {
        Self {
            queues: DashMap::new(),
            waiters: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            awaited: AwaitedKeys::default(),
            most,
            most_per_key,
            most_bytes,
        }
    }

    /// Joins the queue of a key, with a request that keeps so many bytes of body, unless the key's queue or the process has
    /// reached one of its limits.
    pub(crate) fn join(&self, key: StoreKey, bytes: usize) -> Option<Waiter<'_>> {
        let waiters = self.waiters.fetch_add(1, Ordering::SeqCst) + 1;
        let kept = self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        if waiters > self.most || kept > self.most_bytes {
            self.leave(bytes);
            return None;
        }
        let entry = self.queues.entry(key).or_insert_with(|| {
            Arc::new(Entry {
                queue: Arc::new(WaitQueue::new()),
                waiters: AtomicUsize::new(0),
                _awaited: self.awaited.begin(key),
            })
        });
        if entry.waiters.load(Ordering::Relaxed) >= self.most_per_key {
            drop(entry);
            self.leave(bytes);
            return None;
        }
        entry.waiters.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&entry);
        drop(entry);
        observe::waiters(1.0);
        Some(Waiter {
            queues: self,
            key,
            ticket: Some(WaitQueue::join(&shared.queue)),
            entry: shared,
            bytes,
            backoff: Backoff::polling(),
        })
    }

    /// Ends all waiting for this key.
    pub(crate) fn publish(&self, key: &StoreKey, verdict: impl FnOnce() -> Verdict) {
        // A waiter that joined before the record changed is counted already: the count rises before the leader reads.
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return;
        }
        // The queue leaves the map with its verdict, so that the next duplicate starts a new one.
        if let Some((_, entry)) = self.queues.remove(key) {
            entry.queue.publish(verdict());
        }
    }

    /// The record changed: the leader polls again.
    pub(crate) fn notify(&self, key: &StoreKey) {
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return;
        }
        // The handle is cloned so that no waker runs under the map's lock.
        let entry = self.queues.get(key).map(|entry| Arc::clone(&entry));
        if let Some(entry) = entry {
            entry.queue.notify();
        }
    }

    /// Any record may have changed: every leader polls again.
    pub(crate) fn notify_all(&self) {
        for entry in self.entries() {
            entry.queue.notify();
        }
    }

    /// Ends all waiting, because the engine shut down.
    pub(crate) fn close(&self) {
        for entry in self.entries() {
            entry.queue.publish(Verdict::ShutDown);
        }
    }

    /// The keys that requests wait for.
    pub(crate) fn awaited(&self) -> &AwaitedKeys {
        &self.awaited
    }

    /// How many wait now.
    pub(crate) fn len(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }

    fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.queues.iter().map(|entry| Arc::clone(&entry)).collect()
    }
}

impl Waiter<'_> {
    /// The key that it waits for.
    pub(crate) fn key(&self) -> &StoreKey {
        &self.key
    }

    /// Sleeps until the verdict or the lead; `None` when the deadline passed.
    pub(crate) async fn turn(&mut self, deadline: Instant) -> Option<Turn<Verdict>> {
        let ticket = self.ticket.as_mut()?;
        timeout_at(deadline, poll_fn(|context| ticket.poll_turn(context)))
            .await
            .ok()
    }

    /// For the leader: sleeps until the next poll is due, at the latest when the lease that it saw has run out.
    pub(crate) async fn pause(&mut self, lease_left: Duration, deadline: Instant) {
        // A lease that ends now is read a moment later, when the store agrees that it ended.
        let pause = self
            .backoff
            .pause_at_most()
            .min(lease_left + Duration::from_millis(1));
        let until = deadline.min(Instant::now() + pause);
        if let Some(ticket) = &mut self.ticket {
            // Both ends mean the same: the leader polls again.
            let _ = timeout_at(until, poll_fn(|context| ticket.poll_notified(context))).await;
        }
    }

    /// Whether there is a verdict to be read.
    pub(crate) fn has_verdict(&self) -> bool {
        self.entry.queue.has_verdict()
    }

    /// For the leader: ends the waiting of all.
    pub(crate) fn publish(&self, verdict: Verdict) {
        self.queues
            .queues
            .remove_if(&self.key, |_, entry| Arc::ptr_eq(entry, &self.entry));
        self.entry.queue.publish(verdict);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // The ticket first: it passes the lead on to those that stay.
        self.ticket = None;
        self.queues.queues.remove_if(&self.key, |_, entry| {
            // Counted down here, under the entry's lock, where `join` counts up.
            Arc::ptr_eq(entry, &self.entry) && entry.waiters.fetch_sub(1, Ordering::Relaxed) == 1
        });
        self.queues.leave(self.bytes);
        observe::waiters(-1.0);
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("waiters", &self.waiters)
            .finish_non_exhaustive()
    }
}
