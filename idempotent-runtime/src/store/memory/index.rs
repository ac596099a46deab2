//! What expires when, so that expiry costs what expired and not what is stored.
//!
//! Each record has exactly one place in the index: what kind of record it is, and a deadline at or before
//! its expiry. Places change under the lock of their record, and only there; the index's own locks are
//! taken inside it, for one tree operation at a time, and nothing is locked inside them.

use std::collections::BTreeSet;

use crate::{
    scope::StoreKey,
    sync::{Mutex, lock},
};

#[cfg(idempotent_shuttle)]
use shuttle::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(idempotent_shuttle))]
use std::sync::atomic::{AtomicU64, Ordering};

/// As many as the map has. Keys are digests, so their first byte spreads them.
#[cfg(not(idempotent_shuttle))]
const SHARDS: usize = 64;
#[cfg(idempotent_shuttle)]
const SHARDS: usize = 2;

/// Where a record stands in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) completed: bool,
    pub(super) deadline: u64,
}

pub(super) struct Index {
    shards: [Shard; SHARDS],
}

struct Shard {
    /// Nothing here is due before this time, so that finding nothing costs no lock. Never later than the
    /// truth: written only under the lock.
    earliest: AtomicU64,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// Apart from the completed records, so that an eviction need not search among live ones.
    in_flight: BTreeSet<(u64, StoreKey)>,
    completed: BTreeSet<(u64, StoreKey)>,
}

impl Index {
    pub(super) fn new() -> Self {
        let shard = || Shard {
            earliest: AtomicU64::new(u64::MAX),
            places: Mutex::default(),
        };
        Self {
            shards: std::array::from_fn(|_| shard()),
        }
    }

    /// The number of shards; each is purged on its own.
    pub(super) const fn shards() -> usize {
        SHARDS
    }

    /// The shard that this key's place is in.
    pub(super) fn shard_of(key: &StoreKey) -> usize {
        usize::from(key.as_bytes()[0]) % SHARDS
    }

    pub(super) fn insert(&self, key: StoreKey, place: Place) {
        let shard = &self.shards[Self::shard_of(&key)];
        shard.insert(&mut lock(&shard.places), key, place);
    }

    pub(super) fn remove(&self, key: StoreKey, place: Place) {
        let shard = &self.shards[Self::shard_of(&key)];
        lock(&shard.places).of(place).remove(&(place.deadline, key));
    }

    pub(super) fn shift(&self, key: StoreKey, from: Place, to: Place) {
        let shard = &self.shards[Self::shard_of(&key)];
        let mut places = lock(&shard.places);
        places.of(from).remove(&(from.deadline, key));
        shard.insert(&mut places, key, to);
    }

    /// At most `limit` keys of one shard whose deadline has come, with their places. They stay where they
    /// are: whoever deals with the record moves or removes the place under the record's lock.
    pub(super) fn due(&self, shard: usize, now: u64, limit: usize) -> Vec<(StoreKey, Place)> {
        let shard = &self.shards[shard];
        if shard.earliest.load(Ordering::Relaxed) > now {
            return Vec::new();
        }
        let places = lock(&shard.places);
        let until = |set: &BTreeSet<(u64, StoreKey)>, completed: bool| {
            let due = set
                .iter()
                .take_while(|(deadline, _)| *deadline <= now)
                .take(limit);
            due.map(|&(deadline, key)| {
                (
                    key,
                    Place {
                        completed,
                        deadline,
                    },
                )
            })
            .collect::<Vec<_>>()
        };
        let mut due = until(&places.in_flight, false);
        due.extend(until(&places.completed, true));
        due.truncate(limit);
        if due.is_empty() {
            shard.earliest.store(places.earliest(), Ordering::Relaxed);
        }
        due
    }

    /// The completed record that expires first.
    pub(super) fn first_completed(&self) -> Option<(StoreKey, Place)> {
        let first = |shard: &Shard| lock(&shard.places).completed.first().copied();
        let (deadline, key) = self.shards.iter().filter_map(first).min()?;
        Some((
            key,
            Place {
                completed: true,
                deadline,
            },
        ))
    }
}

#[cfg(test)]
impl Index {
    pub(super) fn holds(&self, key: StoreKey, place: Place) -> bool {
        lock(&self.shards[Self::shard_of(&key)].places)
            .of(place)
            .contains(&(place.deadline, key))
    }

    pub(super) fn len(&self) -> usize {
        let len = |places: &Places| places.in_flight.len() + places.completed.len();
        self.shards
            .iter()
            .map(|shard| len(&lock(&shard.places)))
            .sum()
    }
}

impl Shard {
    fn insert(&self, places: &mut Places, key: StoreKey, place: Place) {
        places.of(place).insert((place.deadline, key));
        // Plain load and store: all writers hold the lock.
        if place.deadline < self.earliest.load(Ordering::Relaxed) {
            self.earliest.store(place.deadline, Ordering::Relaxed);
        }
    }
}

impl Places {
    fn of(&mut self, place: Place) -> &mut BTreeSet<(u64, StoreKey)> {
        if place.completed {
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
