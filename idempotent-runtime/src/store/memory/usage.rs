//! How much a store holds, counted exactly.

#[cfg(idempotent_shuttle)]
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(not(idempotent_shuttle))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
    /// Bytes of encoded responses.
    pub bytes: usize,
}

/// Two counters. They change under the lock of the record they count, but no decision about that record depends on
/// them, so they need no memory ordering.
#[derive(Default)]
pub(super) struct Meter {
    records: AtomicUsize,
    bytes: AtomicUsize,
    warned: AtomicBool,
}

/// The share of a bound from which on a warning is logged, and the one below which the next warning may follow.
const WARN_ABOVE: usize = 80;
const CALM_BELOW: usize = 70;

impl Meter {
    /// What the store holds, if it has come near one of its bounds since the last warning.
    pub(super) fn warning(&self, limits: Limits) -> Option<Usage> {
        let usage = self.read();
        let above = |percent: usize| {
            let reached = |used: usize, bound: usize| {
                used.saturating_mul(100) >= bound.saturating_mul(percent)
            };
            reached(usage.records, limits.records) || reached(usage.bytes, limits.bytes)
        };
        if above(WARN_ABOVE) {
            let first =
                !self.warned.load(Ordering::Relaxed) && !self.warned.swap(true, Ordering::Relaxed);
            return first.then_some(usage);
        }
        if self.warned.load(Ordering::Relaxed) && !above(CALM_BELOW) {
            self.warned.store(false, Ordering::Relaxed);
        }
        None
    }

    /// Counts one more record unless there are `max` already; returns whether it did.
    pub(super) fn admit(&self, max: usize) -> bool {
        let one_more = |records: usize| (records < max).then_some(records + 1);
        self.records
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    /// Stops counting a record and its bytes.
    pub(super) fn remove(&self, bytes: usize) {
        self.records.fetch_sub(1, Ordering::Relaxed);
        self.resize(bytes, 0);
    }

    /// Counts a record's new number of bytes in the place of the old one.
    pub(super) fn resize(&self, before: usize, after: usize) {
        if after > before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else if after < before {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self) -> Usage {
        Usage {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes(),
        }
    }
}
