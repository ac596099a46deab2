//! Waiting for somebody else's outcome.
//!
//! Subscribe, then read, then wait: a waiter takes a [seat](Seat) first; whoever leads the cell then reads
//! the store, and only then sleeps. So a completion either finds the cell to publish in, or happened before
//! the leader's first read. Polling goes on whatever notifications do: losing them all costs time, never an
//! answer. A waiter that leaves touches no record.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use dashmap::DashMap;
use tokio::time::{Instant, timeout_at};

use super::cell::{Cell, Seat, Turn};
use crate::{fingerprint::Fingerprint, observe, scope::StoreKey, store::Outcome, sync::Arc};

/// First and longest pause between two looks at the store.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

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

/// All the cells of one engine.
#[derive(Debug)]
pub(crate) struct WaitRoom {
    cells: DashMap<StoreKey, Arc<Occupied>>,
    waiters: AtomicUsize,
    most: usize,
    most_per_key: usize,
}

/// A cell and how many sit in it. The number changes under the entry's lock only.
pub(crate) struct Occupied {
    cell: Arc<Cell<Verdict>>,
    seats: AtomicUsize,
}

/// A waiter's place in the room.
pub(crate) struct Waiter<'a> {
    room: &'a WaitRoom,
    key: StoreKey,
    seat: Option<Seat<Verdict>>,
    occupied: Arc<Occupied>,
    backoff: Duration,
}

impl WaitRoom {
    pub(crate) fn new(most: usize, most_per_key: usize) -> Self {
        Self {
            cells: DashMap::new(),
            waiters: AtomicUsize::new(0),
            most,
            most_per_key,
        }
    }

    /// Takes a place, unless the process or the key has its fill.
    pub(crate) fn join(&self, key: StoreKey) -> Option<Waiter<'_>> {
        if self.waiters.fetch_add(1, Ordering::SeqCst) >= self.most {
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let entry = self.cells.entry(key).or_insert_with(|| {
            Arc::new(Occupied {
                cell: Arc::new(Cell::new()),
                seats: AtomicUsize::new(0),
            })
        });
        if entry.seats.load(Ordering::Relaxed) >= self.most_per_key {
            drop(entry);
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        entry.seats.fetch_add(1, Ordering::Relaxed);
        let occupied = Arc::clone(&entry);
        drop(entry);
        observe::waiters(1.0);
        Some(Waiter {
            room: self,
            key,
            seat: Some(Cell::join(&occupied.cell)),
            occupied,
            backoff: BACKOFF.0,
        })
    }

    /// Ends all waiting for this key.
    pub(crate) fn publish(&self, key: &StoreKey, verdict: impl FnOnce() -> Verdict) {
        // Who sat down before the record changed is counted already: the count rises before the leader reads.
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return;
        }
        // The cell leaves the map with its verdict, so that whoever comes next starts anew.
        if let Some((_, occupied)) = self.cells.remove(key) {
            occupied.cell.publish(verdict());
        }
    }

    /// The record changed: the leader looks again.
    pub(crate) fn poke(&self, key: &StoreKey) {
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return;
        }
        // The handle is cloned so that no waker runs under the map's lock.
        let occupied = self.cells.get(key).map(|entry| Arc::clone(&entry));
        if let Some(occupied) = occupied {
            occupied.cell.poke();
        }
    }

    /// Any record may have changed: every leader looks again.
    pub(crate) fn poke_all(&self) {
        for occupied in self.occupied() {
            occupied.cell.poke();
        }
    }

    /// Ends all waiting, because the engine shut down.
    pub(crate) fn close(&self) {
        for occupied in self.occupied() {
            occupied.cell.publish(Verdict::ShutDown);
        }
    }

    /// How many wait now.
    pub(crate) fn len(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }

    fn occupied(&self) -> Vec<Arc<Occupied>> {
        self.cells.iter().map(|entry| Arc::clone(&entry)).collect()
    }
}

impl Waiter<'_> {
    /// Sleeps until the verdict or the lead; `None` when the deadline passed.
    pub(crate) async fn turn(&mut self, deadline: Instant) -> Option<Turn<Verdict>> {
        let seat = self.seat.as_mut()?;
        timeout_at(deadline, poll_fn(|context| seat.poll_turn(context)))
            .await
            .ok()
    }

    /// For the leader: sleeps until the next look is due, at the latest when the lease seen has run out.
    pub(crate) async fn pause(&mut self, lease_left: Duration, deadline: Instant) {
        // With the look that follows, never more than the longest pause.
        let jitter = 0.5 + rand::random::<f64>() * 0.45;
        // A lease that ends now is looked at a moment later, when the store agrees that it ended.
        let pause = self
            .backoff
            .mul_f64(jitter)
            .min(lease_left + Duration::from_millis(1));
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
        let until = deadline.min(Instant::now() + pause);
        if let Some(seat) = &mut self.seat {
            // Either end is fine: the leader looks again.
            let _ = timeout_at(until, poll_fn(|context| seat.poll_poked(context))).await;
        }
    }

    /// Whether a verdict is there to be read.
    pub(crate) fn is_settled(&self) -> bool {
        self.occupied.cell.is_settled()
    }

    /// For the leader: tells everybody.
    pub(crate) fn publish(&self, verdict: Verdict) {
        self.room.cells.remove_if(&self.key, |_, occupied| {
            Arc::ptr_eq(occupied, &self.occupied)
        });
        self.occupied.cell.publish(verdict);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // The seat first: it passes the lead on to those who stay.
        self.seat = None;
        self.room.cells.remove_if(&self.key, |_, occupied| {
            // Counted down here, under the entry's lock, where `join` counts up.
            Arc::ptr_eq(occupied, &self.occupied)
                && occupied.seats.fetch_sub(1, Ordering::Relaxed) == 1
        });
        self.room.waiters.fetch_sub(1, Ordering::SeqCst);
        observe::waiters(-1.0);
    }
}

impl std::fmt::Debug for Occupied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Occupied")
            .field("seats", &self.seats)
            .finish_non_exhaustive()
    }
}
