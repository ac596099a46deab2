//! Rows, their places in the expiry index and the count of both, kept in step.
//!
//! The invariant: while no row is locked, the index holds exactly one place per row, the row's own
//! ([`place`]), and the meter has counted exactly what is there. Every function here restores it before it
//! lets go of the row.
//!
//! Locks are taken in one order: a row in the map, then a shard of the index, and neither is ever held
//! while another of its kind is asked for. Who comes from the index (a purge, an eviction) therefore lets
//! go of it first and then looks whether the row is still in the place where it was seen.

use super::{
    index::{Index, Place},
    map::{Entry, Map},
    row::Row,
    usage::{Meter, Usage},
};
use crate::{
    scope::StoreKey,
    store::{
        record::{Acquisition, Claim, Record, Write},
        token::Token,
    },
};

/// How many places are looked at in one go. Bounds what a purge keeps on its stack and how long it holds a
/// shard of the index.
const BATCH: usize = 64;

/// From where on a new key is refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

pub(super) enum Claimed {
    Decided(Acquisition),
    /// The key is new, and the store is at a bound.
    NoRoom,
}

pub(super) struct Table {
    rows: Map,
    index: Index,
    meter: Meter,
    limits: Limits,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            rows: Map::new(),
            index: Index::new(),
            meter: Meter::default(),
            limits,
        }
    }

    pub(super) fn claim(&self, claim: &Claim, now: u64) -> Claimed {
        match self.rows.entry(claim.key) {
            Entry::Occupied(mut row) => {
                Claimed::Decided(
                    self.change(&claim.key, row.get_mut(), |row| row.acquire(claim, now)),
                )
            }
            Entry::Vacant(vacant) => {
                if self.meter.bytes() >= self.limits.bytes || !self.meter.admit(self.limits.records)
                {
                    return Claimed::NoRoom;
                }
                let row = Box::new(Row::new(claim, now));
                self.index.insert(claim.key, place(&row));
                vacant.insert(row);
                Claimed::Decided(Acquisition::Acquired { attempt: 1 })
            }
        }
    }

    /// A write to a row that must exist.
    pub(super) fn write(&self, key: &StoreKey, decide: impl FnOnce(&mut Row) -> Write) -> Write {
        self.rows
            .update(key, |row| self.change(key, row, decide))
            .unwrap_or(Write::Missing)
    }

    pub(super) fn release(&self, key: &StoreKey, token: &Token) -> Write {
        match self.rows.entry(*key) {
            Entry::Occupied(row) if row.get().holds(token) => {
                self.index.remove(*key, place(row.get()));
                self.meter.dismiss(row.get().bytes());
                row.remove();
                Write::Applied
            }
            Entry::Occupied(_) => Write::Fenced,
            Entry::Vacant(_) => Write::Missing,
        }
    }

    pub(super) fn get(&self, key: &StoreKey, now: u64) -> Option<Record> {
        self.rows
            .view(key, |row| (!row.expired(now)).then(|| row.show(now)))
            .flatten()
    }

    /// Deletes up to `limit` expired rows of the shard that this key is in.
    pub(super) fn sweep(&self, key: &StoreKey, now: u64, limit: usize) {
        self.purge_shard(Index::shard_of(key), now, limit);
    }

    /// Deletes up to `limit` expired rows and says how many.
    pub(super) fn purge(&self, now: u64, limit: usize) -> usize {
        (0..Index::shards()).fold(0, |purged, shard| {
            purged + self.purge_shard(shard, now, limit - purged)
        })
    }

    /// Deletes the completed row that expires first, and says whether there was one.
    pub(super) fn evict(&self) -> bool {
        // A row that changed since it was seen has another place now, so each turn sees something new.
        while let Some((key, seen)) = self.index.first_completed() {
            if self.remove_if(key, seen, Row::completed) {
                return true;
            }
        }
        false
    }

    pub(super) fn usage(&self) -> Usage {
        self.meter.read()
    }

    fn purge_shard(&self, shard: usize, now: u64, limit: usize) -> usize {
        let mut purged = 0;
        while purged < limit {
            let due = self.index.due(shard, now, BATCH.min(limit - purged));
            if due.is_empty() {
                break;
            }
            for (key, seen) in due {
                purged += usize::from(self.remove_if(key, seen, |row| row.expired(now)));
            }
        }
        purged
    }

    /// Deletes the row if it is still where it was seen and is as it must be. One that is not, because it
    /// was renewed after it had been placed, moves to where it belongs now.
    fn remove_if(&self, key: StoreKey, seen: Place, doomed: impl FnOnce(&Row) -> bool) -> bool {
        let Entry::Occupied(mut row) = self.rows.entry(key) else {
            return false;
        };
        if place(row.get()) != seen {
            return false;
        }
        if doomed(row.get()) {
            self.index.remove(key, seen);
            self.meter.dismiss(row.get().bytes());
            row.remove();
            return true;
        }
        self.settle(&key, row.get_mut(), seen);
        false
    }

    /// Applies a decision to a row and restores the invariant.
    fn change<R>(&self, key: &StoreKey, row: &mut Row, decide: impl FnOnce(&mut Row) -> R) -> R {
        let (before, bytes) = (place(row), row.bytes());
        let answer = decide(row);
        self.meter.resize(bytes, row.bytes());
        // A later deadline can wait until the old one comes: a renewal costs the index nothing.
        if row.completed() != before.completed || row.deadline() < before.deadline {
            self.settle(key, row, before);
        }
        answer
    }

    /// Moves a row's place to its deadline.
    fn settle(&self, key: &StoreKey, row: &mut Row, from: Place) {
        row.indexed = row.deadline();
        self.index.shift(*key, from, place(row));
    }
}

#[cfg(test)]
impl Table {
    /// Checks the invariant, row by row.
    pub(super) fn audit(&self) {
        let (mut rows, mut bytes) = (0, 0);
        self.rows.each(|key, row| {
            assert!(
                self.index.holds(*key, place(row)),
                "the index has the place of every row"
            );
            assert!(
                row.indexed <= row.deadline(),
                "no place is later than its row's expiry"
            );
            rows += 1;
            bytes += row.bytes();
        });
        assert_eq!(self.index.len(), rows, "the index has no other places");
        assert_eq!(
            (self.usage().records, self.usage().bytes),
            (rows, bytes),
            "the meter is exact"
        );
    }
}

/// Where the index holds this row.
fn place(row: &Row) -> Place {
    Place {
        completed: row.completed(),
        deadline: row.indexed,
    }
}
