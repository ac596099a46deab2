//! The expiry index: which record expires when, so that the cost of expiry is proportional to what expired and not
//! to what is stored.
//!
//! Each record has exactly one entry: whether it is completed, and a deadline at or before its expiry. An entry
//! changes only under the lock of its record. The index's own locks are taken inside that lock, for one tree
//! operation at a time, and nothing is locked inside them.

use std::collections::BTreeSet;

use crate::{
    scope::StoreKey,
    sync::{Mutex, lock},
};

#[cfg(idempotent_shuttle)]
use shuttle::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(idempotent_shuttle))]
use std::sync::atomic::{AtomicU64, Ordering};

/// As many shards as the map has. Keys are digests, so their first byte spreads them evenly.
#[cfg(not(idempotent_shuttle))]
const SHARDS: usize = 64;
#[cfg(idempotent_shuttle)]
const SHARDS: usize = 2;

/// A record's entry, without its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) completed: bool,
    pub(super) deadline: u64,
}

pub(super) struct Index {
    shards: [Shard; SHARDS],
}

struct Shard {
    /// No entry of this shard is due before this time, so that a shard with nothing due costs no lock. Never later
    /// than the earliest deadline, because it is written only under the lock.
    earliest: AtomicU64,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// Kept apart from the completed records, so that an eviction need not search among records in flight.
    in_flight: BTreeSet<(u64, StoreKey)>,
    completed: BTreeSet<(u64, StoreKey)>,
}

impl Index {
    pub(super) fn new() -> Self {
        let shard = || Shard {
            earliest: AtomicU64::new(u64::MAX),
            entries: Mutex::default(),
        };
        Self {
            shards: std::array::from_fn(|_| shard()),
        }
    }

    /// The number of shards; each is purged separately.
    pub(super) const fn shards() -> usize {
        SHARDS
    }

    /// The shard that this key's entry is in.
    pub(super) fn shard_of(key: &StoreKey) -> usize {
        usize::from(key.as_bytes()[0]) % SHARDS
    }

    pub(super) fn insert(&self, key: StoreKey, entry: IndexEntry) {
        let shard = &self.shards[Self::shard_of(&key)];
        shard.insert(&mut lock(&shard.entries), key, entry);
    }

    pub(super) fn remove(&self, key: StoreKey, entry: IndexEntry) {
        let shard = &self.shards[Self::shard_of(&key)];
        lock(&shard.entries)
            .of(entry)
            .remove(&(entry.deadline, key));
    }

    pub(super) fn replace(&self, key: StoreKey, from: IndexEntry, to: IndexEntry) {
        let shard = &self.shards[Self::shard_of(&key)];
        let mut entries = lock(&shard.entries);
        entries.of(from).remove(&(from.deadline, key));
        shard.insert(&mut entries, key, to);
    }

    /// At most `limit` keys of one shard whose deadline has passed, with their entries. The entries stay in the
    /// index: the caller replaces or removes each under its record's lock.
    pub(super) fn due(&self, shard: usize, now: u64, limit: usize) -> Vec<(StoreKey, IndexEntry)> {
        let shard = &self.shards[shard];
        if shard.earliest.load(Ordering::Relaxed) > now {
            return Vec::new();
        }
        let entries = lock(&shard.entries);
        let until = |set: &BTreeSet<(u64, StoreKey)>, completed: bool| {
            let due = set
                .iter()
                .take_while(|(deadline, _)| *deadline <= now)
                .take(limit);
            due.map(|&(deadline, key)| {
                (
                    key,
                    IndexEntry {
                        completed,
                        deadline,
                    },
                )
            })
            .collect::<Vec<_>>()
        };
        let mut due = until(&entries.in_flight, false);
        due.extend(until(&entries.completed, true));
        due.truncate(limit);
        if due.is_empty() {
            shard.earliest.store(entries.earliest(), Ordering::Relaxed);
        }
        due
    }

    /// The completed record that expires first.
    pub(super) fn first_completed(&self) -> Option<(StoreKey, IndexEntry)> {
        let first = |shard: &Shard| lock(&shard.entries).completed.first().copied();
        let (deadline, key) = self.shards.iter().filter_map(first).min()?;
        Some((
            key,
            IndexEntry {
                completed: true,
                deadline,
            },
        ))
    }
}

#[cfg(test)]
impl Index {
    pub(super) fn holds(&self, key: StoreKey, entry: IndexEntry) -> bool {
        lock(&self.shards[Self::shard_of(&key)].entries)
            .of(entry)
            .contains(&(entry.deadline, key))
    }

    pub(super) fn len(&self) -> usize {
        let len = |entries: &Entries| entries.in_flight.len() + entries.completed.len();
        self.shards
            .iter()
            .map(|shard| len(&lock(&shard.entries)))
            .sum()
    }
}

impl Shard {
    fn insert(&self, entries: &mut Entries, key: StoreKey, entry: IndexEntry) {
        entries.of(entry).insert((entry.deadline, key));
        // A plain load and store is enough: all writers hold the lock.
        if entry.deadline < self.earliest.load(Ordering::Relaxed) {
            self.earliest.store(entry.deadline, Ordering::Relaxed);
        }
    }
}

impl Entries {
    fn of(&mut self, entry: IndexEntry) -> &mut BTreeSet<(u64, StoreKey)> {
        if entry.completed {
            &mut self.completed
        } else {
            &mut self.in_flight
        }
    }

    fn earliest(&self) -> u64 {
        let first = |set: &BTreeSet<(u64, StoreKey)>| {
            set.first().map_or(u64::MAX, |(deadline, _)| *deadline)
        };
        first(&self.in_flight).min(first(&self.completed))
    }
}
