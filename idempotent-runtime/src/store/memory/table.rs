//! The shards, and what is left of the bounds of the whole store.
//!
//! An operation locks the one shard of its key. What needs all shards (a purge, a store at a bound) locks one after the
//! other, never two at once.

use std::{hash::BuildHasher, ops::RangeInclusive};

use super::{
    clock::Clock,
    row::Row,
    shard::{ClaimResult, Context, Shard},
    usage::{Budget, Limits, SHARDS, Usage},
};
use crate::{
    keyed_hash::KeyedHash,
    scope::StoreKey,
    store::{
        admin::Seen,
        record::{Claim, Record, Write},
        steps::StepsRead,
        token::Token,
    },
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        lock,
    },
};

/// How many expired records each claim deletes. A claim adds at most one record, so any number above one shrinks a
/// backlog; a small one keeps the cost of a single request flat.
const SWEEP: usize = 4;
/// How many expired records are deleted under one lock.
const BATCH: usize = 64;

/// Where a record stands among all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) hash: u64,
    /// Tells records of one hash apart.
    pub(super) key: [u8; 32],
}

pub(super) struct Table {
    lanes: [Lane; SHARDS],
    hasher: KeyedHash,
    budget: Budget,
}

/// A shard, and what it holds, to be read without its lock. Alone on its cache lines.
#[repr(align(128))]
struct Lane {
    shard: Mutex<Shard>,
    records: AtomicUsize,
    bytes: AtomicUsize,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        let lane = |_| Lane {
            shard: Mutex::new(Shard::new()),
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        };
        Self {
            lanes: std::array::from_fn(lane),
            hasher: KeyedHash::new(),
            budget: Budget::new(limits),
        }
    }

    pub(super) fn claim(&self, claim: &Claim, now: u64) -> ClaimResult {
        let at = self.context(self.hasher.hash_one(claim.key), now);
        // The expired ones are dropped when the lock is free.
        let (result, _swept) = self.lane(&claim.key).with(|shard| {
            let result = shard.claim(claim, at);
            // After the decision, so that an expired record of this key is reused and keeps counting its attempts.
            let mut swept = [const { None::<Box<Row>> }; SWEEP];
            for slot in &mut swept {
                *slot = shard.pop_expired(now, at.budget);
                if slot.is_none() {
                    break;
                }
            }
            if shard.should_look(now) {
                shard.purge_in_flight(BATCH, at);
            }
            (result, swept)
        });
        result
    }

    /// Writes to a record that must exist.
    pub(super) fn write(
        &self,
        key: &StoreKey,
        now: u64,
        decide: impl FnOnce(&mut Row) -> Write,
    ) -> Write {
        let at = self.context(self.hasher.hash_one(key), now);
        self.lane(key).with(|shard| shard.write(key, at, decide))
    }

    pub(super) fn release(&self, key: &StoreKey, token: &Token) -> Write {
        let at = self.context(self.hasher.hash_one(key), 0);
        self.lane(key).with(|shard| shard.release(key, token, at))
    }

    /// Deletes this record if it is completed and still the one that was seen.
    pub(super) fn forget(&self, seen: &Seen, now: u64) -> Write {
        let at = self.context(self.hasher.hash_one(seen.key), now);
        // Dropped when the lock is free.
        let (write, _row) = self.lane(&seen.key).with(|shard| shard.forget(seen, at));
        write
    }

    pub(super) fn get(&self, key: &StoreKey, now: u64, clock: &Clock) -> Option<Record> {
        let shard = lock(&self.lane(key).shard);
        let row = shard.get(key, self.hasher.hash_one(key))?;
        (!row.expired(now)).then(|| row.record(now, clock))
    }

    /// Where the record of this key stands, or would stand.
    pub(super) fn place(&self, key: &StoreKey) -> Place {
        Place {
            shard: shard_of(key),
            hash: self.hasher.hash_one(key),
            key: *key.as_bytes(),
        }
    }

    /// How many records a shard has.
    pub(super) fn records(&self, shard: usize) -> usize {
        self.lanes[shard].records.load(Ordering::Relaxed)
    }

    /// What `show` makes of the records of this shard that have one of these hashes, in no order.
    pub(super) fn rows<T>(
        &self,
        shard: usize,
        hashes: &RangeInclusive<u64>,
        show: impl Fn(&Row) -> T,
    ) -> Vec<(Place, T)> {
        let rows = lock(&self.lanes[shard].shard);
        rows.rows(hashes)
            .map(|(hash, row)| {
                let key = *row.key().as_bytes();
                (Place { shard, hash, key }, show(row))
            })
            .collect()
    }

    /// The log of the execution that holds this token.
    pub(super) fn read_steps(&self, key: &StoreKey, token: &Token) -> StepsRead {
        let shard = lock(&self.lane(key).shard);
        let row = shard.get(key, self.hasher.hash_one(key));
        row.map_or(StepsRead::Missing, |row| row.read_steps(token))
    }

    /// Deletes up to `limit` expired records and returns how many it deleted.
    pub(super) fn purge(&self, now: u64, limit: usize) -> usize {
        self.lanes.iter().fold(0, |purged, lane| {
            purged + self.purge_lane(lane, now, limit - purged)
        })
    }

    /// Makes room for a new record: credit that other shards hold, expired records, or if `evict` allows it the completed
    /// record that expires first. Returns whether there may be room now.
    pub(super) fn make_room(&self, now: u64, evict: bool) -> bool {
        let surrender = || {
            let surrender = |lane: &Lane| lane.with(|shard| shard.surrender(&self.budget));
            self.lanes.iter().filter(|lane| surrender(lane)).count() > 0
        };
        // What was deleted becomes credit of its shard, so it is surrendered too.
        surrender()
            || (self.purge(now, BATCH) > 0 && surrender())
            || (evict && self.evict() && surrender())
    }

    /// What the store holds.
    pub(super) fn usage(&self) -> Usage {
        let sum = |count: fn(&Lane) -> &AtomicUsize| {
            self.lanes
                .iter()
                .map(|lane| count(lane).load(Ordering::Relaxed))
                .sum()
        };
        Usage {
            records: sum(|lane| &lane.records),
            bytes: sum(|lane| &lane.bytes),
        }
    }

    /// What the store holds, if that is worth a warning now.
    pub(super) fn warning(&self) -> Option<Usage> {
        self.budget.warning(|| self.usage())
    }

    pub(super) fn limits(&self) -> Limits {
        self.budget.limits()
    }

    fn purge_lane(&self, lane: &Lane, now: u64, limit: usize) -> usize {
        let at = self.context(0, now);
        let mut purged = lane.with(|shard| shard.purge_in_flight(limit, at));
        loop {
            let batch = BATCH.min(limit - purged);
            let rows: Vec<_> = lane.with(|shard| {
                std::iter::from_fn(|| shard.pop_expired(now, at.budget))
                    .take(batch)
                    .collect()
            });
            purged += rows.len();
            if rows.len() < batch || batch == 0 {
                return purged;
            }
        }
    }

    /// Deletes the completed record that expires first; returns whether there was one.
    fn evict(&self) -> bool {
        let first = |lane: &Lane| lock(&lane.shard).first_due();
        // An entry may belong to no record any more; then another look finds the next one.
        while let Some((_, lane)) = self
            .lanes
            .iter()
            .filter_map(|lane| Some((first(lane)?, lane)))
            .min_by_key(|(due, _)| *due)
        {
            let evicted = lane.with(|shard| {
                let due = shard.first_due()?;
                shard.pop_expired(due, &self.budget)
            });
            if evicted.is_some() {
                return true;
            }
        }
        false
    }

    fn lane(&self, key: &StoreKey) -> &Lane {
        &self.lanes[shard_of(key)]
    }

    fn context(&self, hash: u64, now: u64) -> Context<'_> {
        Context {
            hash,
            now,
            budget: &self.budget,
        }
    }
}

fn shard_of(key: &StoreKey) -> usize {
    usize::from(key.as_bytes()[0]) % SHARDS
}

impl Lane {
    /// Changes the shard, and publishes what it holds then.
    fn with<R>(&self, change: impl FnOnce(&mut Shard) -> R) -> R {
        let mut shard = lock(&self.shard);
        let result = change(&mut shard);
        self.records.store(shard.records(), Ordering::Relaxed);
        self.bytes.store(shard.bytes(), Ordering::Relaxed);
        result
    }
}

#[cfg(test)]
impl Table {
    /// Checks the invariants of all shards, and that no room was lost or invented. Nothing may run meanwhile.
    pub(super) fn audit(&self) {
        let shards: Vec<_> = self.lanes.iter().map(|lane| lock(&lane.shard)).collect();
        for shard in &shards {
            shard.audit(|key| self.hasher.hash_one(key));
        }
        let records: usize = shards.iter().map(|shard| shard.records()).sum();
        let bytes: usize = shards.iter().map(|shard| shard.bytes()).sum();
        let usage = self.usage();
        assert_eq!((usage.records, usage.bytes), (records, bytes));
        let (room, counted) = self.budget.audit(shards.iter().map(|shard| shard.share()));
        assert_eq!(room, self.limits().records - records, "the room is exact");
        assert_eq!(counted, bytes, "the bytes are exact");
    }
}
