//! How much a store holds, and whether one more record fits.
//!
//! No counter is shared by all requests. Each shard counts its own records and bytes, and holds some of the room that is
//! left as *credit*: it asks the store's [`Budget`] for more only when that is used up, and the budget collects the credit
//! of all shards before anybody is refused. The bounds are therefore exact, as if there were one counter.

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many shards a store has. Keys are digests, so their first byte spreads them evenly.
#[cfg(not(idempotent_shuttle))]
pub(super) const SHARDS: usize = 64;
/// Two, so that some keys share a lock and others do not.
#[cfg(idempotent_shuttle)]
pub(super) const SHARDS: usize = 2;

/// The bounds at which new keys are refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// How much a [`MemoryStore`](super::MemoryStore) holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Records in any state, expired ones included until they are purged.
    pub records: usize,
    /// Bytes of encoded responses, and of the steps of executions in flight.
    pub bytes: usize,
}

/// The room of the whole store.
pub(super) struct Budget {
    limits: Limits,
    /// Records that may still be admitted, without the shards' credit.
    room: AtomicUsize,
    /// Bytes that the shards have reported.
    bytes: AtomicUsize,
    warned: AtomicBool,
}

/// A shard's part of the budget. It changes under the shard's lock.
#[derive(Default)]
pub(super) struct Share {
    /// Records that the shard may admit without asking.
    credit: usize,
    /// Bytes that the shard holds, and what it has reported of them.
    bytes: usize,
    reported: usize,
}

/// The share of a bound from which on a warning is logged, and the one below which the next warning may follow.
const WARN_ABOVE: usize = 80;
const CALM_BELOW: usize = 70;

/// The most credit that a shard takes at once, and the most bytes that it holds unreported.
const MOST_CREDIT: usize = 64;
const MOST_UNREPORTED: usize = 64 * 1024;

/// Whether one more record fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It does.
    Admitted {
        /// Whether the budget was asked, so that it is time to look how full the store is.
        asked: bool,
    },
    /// The store is at a bound, as far as this shard knows.
    Full,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            room: AtomicUsize::new(limits.records),
            bytes: AtomicUsize::new(0),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether a warning is due: the store has come near one of its bounds since the last one. `exact` is asked only if
    /// what the shards have reported says so, or once a warning was given.
    pub(super) fn warning(&self, exact: impl FnOnce() -> Usage) -> Option<Usage> {
        let reported = Usage {
            records: self.limits.records - self.room.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        };
        let warned = self.warned.load(Ordering::Relaxed);
        if !warned && !self.reaches(WARN_ABOVE, reported) {
            return None;
        }
        let usage = exact();
        if self.reaches(WARN_ABOVE, usage) {
            let first = !warned && !self.warned.swap(true, Ordering::Relaxed);
            return first.then_some(usage);
        }
        if warned && !self.reaches(CALM_BELOW, usage) {
            self.warned.store(false, Ordering::Relaxed);
        }
        None
    }

    fn reaches(&self, percent: usize, usage: Usage) -> bool {
        let reached =
            |used: usize, bound: usize| used.saturating_mul(100) >= bound.saturating_mul(percent);
        reached(usage.records, self.limits.records) || reached(usage.bytes, self.limits.bytes)
    }

    /// A small part of a shard's part of the bound, so that little is held back.
    fn credit(&self) -> usize {
        (self.limits.records / (16 * SHARDS)).clamp(1, MOST_CREDIT)
    }

    fn unreported(&self) -> usize {
        (self.limits.bytes / (64 * SHARDS)).min(MOST_UNREPORTED)
    }

    fn take(&self, most: usize) -> usize {
        let mut taken = 0;
        // An error says that there was no room, and so does zero.
        let _ = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| {
                taken = room.min(most);
                (taken > 0).then(|| room - taken)
            });
        taken
    }
}

impl Share {
    /// Takes the room for one more record.
    pub(super) fn admit(&mut self, budget: &Budget) -> Admission {
        if budget.bytes.load(Ordering::Relaxed) >= budget.limits.bytes {
            return Admission::Full;
        }
        let asked = self.credit == 0;
        if asked {
            self.credit = budget.take(budget.credit());
        }
        match self.credit.checked_sub(1) {
            Some(left) => {
                self.credit = left;
                Admission::Admitted { asked }
            }
            None => Admission::Full,
        }
    }

    /// Gives the room of one record back.
    pub(super) fn leave(&mut self, budget: &Budget) {
        self.credit += 1;
        let keep = budget.credit();
        if self.credit > 2 * keep {
            budget.room.fetch_add(self.credit - keep, Ordering::Relaxed);
            self.credit = keep;
        }
    }

    /// Counts a record's new number of bytes in the place of the old one.
    pub(super) fn resize(&mut self, before: usize, after: usize, budget: &Budget) {
        self.bytes = self.bytes - before + after;
        if self.bytes.abs_diff(self.reported) > budget.unreported() {
            self.report(budget);
        }
    }

    /// Gives all credit back and reports every byte. Returns whether that may have made room.
    pub(super) fn surrender(&mut self, budget: &Budget) -> bool {
        let made_room = self.credit > 0 || self.bytes < self.reported;
        budget.room.fetch_add(self.credit, Ordering::Relaxed);
        self.credit = 0;
        self.report(budget);
        made_room
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn report(&mut self, budget: &Budget) {
        // The sum wraps on its way down, and is exact.
        let change = self.bytes.wrapping_sub(self.reported);
        budget.bytes.fetch_add(change, Ordering::Relaxed);
        self.reported = self.bytes;
    }
}

#[cfg(test)]
impl Budget {
    /// The room and the bytes that the budget and these shares make together.
    pub(super) fn audit<'a>(&self, shares: impl Iterator<Item = &'a Share>) -> (usize, usize) {
        let (mut room, mut bytes) = (
            self.room.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        );
        for share in shares {
            room += share.credit;
            bytes = bytes.wrapping_add(share.bytes.wrapping_sub(share.reported));
        }
        (room, bytes)
    }
}
