//! The rows, their expiry index and their meter, kept consistent.
//!
//! The invariant: while no row is locked, the index holds exactly one entry per row, the row's own
//! ([`index_entry`]), and the meter has counted exactly what the map holds. Every function here restores the
//! invariant before it unlocks the row.
//!
//! Lock order: a row in the map, then a shard of the index. Neither is held while another of its kind is
//! requested. A purge or an eviction starts from the index, so it unlocks the index first and then checks that the
//! row still has the entry it saw.

use super::{
    index::{Index, IndexEntry},
    map::{Entry, Map},
    row::Row,
    usage::{Limits, Meter, Usage},
};
use crate::{
    scope::StoreKey,
    store::{
        record::{Acquisition, Claim, Record, Write},
        token::Token,
    },
};

/// How many entries are read from the index at once. Bounds the memory of a purge and how long it holds a shard of
/// the index.
const BATCH: usize = 64;

pub(super) enum ClaimResult {
    Decided(Acquisition),
    /// The key is new and the store is at a bound.
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

    pub(super) fn claim(&self, claim: &Claim, now: u64) -> ClaimResult {
        match self.rows.entry(claim.key) {
            Entry::Occupied(mut row) => {
                ClaimResult::Decided(
                    self.change(&claim.key, row.get_mut(), |row| row.acquire(claim, now)),
                )
            }
            Entry::Vacant(vacant) => {
                if self.meter.bytes() >= self.limits.bytes || !self.meter.admit(self.limits.records)
                {
                    return ClaimResult::NoRoom;
                }
                let row = Box::new(Row::new(claim, now));
                self.index.insert(claim.key, index_entry(&row));
                vacant.insert(row);
                ClaimResult::Decided(Acquisition::Acquired { attempt: 1 })
            }
        }
    }

    /// Writes to a row that must exist.
    pub(super) fn write(&self, key: &StoreKey, decide: impl FnOnce(&mut Row) -> Write) -> Write {
        self.rows
            .update(key, |row| self.change(key, row, decide))
            .unwrap_or(Write::Missing)
    }

    pub(super) fn release(&self, key: &StoreKey, token: &Token) -> Write {
        match self.rows.entry(*key) {
            Entry::Occupied(row) if row.get().holds(token) => {
                self.index.remove(*key, index_entry(row.get()));
                self.meter.remove(row.get().bytes());
                row.remove();
                Write::Applied
            }
            Entry::Occupied(_) => Write::Fenced,
            Entry::Vacant(_) => Write::Missing,
        }
    }

    pub(super) fn get(&self, key: &StoreKey, now: u64) -> Option<Record> {
        self.rows
            .view(key, |row| (!row.expired(now)).then(|| row.record(now)))
            .flatten()
    }

    /// Deletes up to `limit` expired rows of this key's shard.
    pub(super) fn sweep(&self, key: &StoreKey, now: u64, limit: usize) {
        self.purge_shard(Index::shard_of(key), now, limit);
    }

    /// Deletes up to `limit` expired rows and returns how many it deleted.
    pub(super) fn purge(&self, now: u64, limit: usize) -> usize {
        (0..Index::shards()).fold(0, |purged, shard| {
            purged + self.purge_shard(shard, now, limit - purged)
        })
    }

    /// Deletes the completed row that expires first; returns whether there was one.
    pub(super) fn evict(&self) -> bool {
        // A row that changed meanwhile has another entry now, so each iteration sees a new one.
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

    /// What the store holds, if that is worth a warning now.
    pub(super) fn warning(&self) -> Option<Usage> {
        self.meter.warning(self.limits)
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
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

    /// Deletes the row if it still has the entry that was seen and meets the condition. A row that does not meet
    /// it, because it was renewed after it was indexed, is indexed again.
    fn remove_if(
        &self,
        key: StoreKey,
        seen: IndexEntry,
        condition: impl FnOnce(&Row) -> bool,
    ) -> bool {
        let Entry::Occupied(mut row) = self.rows.entry(key) else {
            return false;
        };
        if index_entry(row.get()) != seen {
            return false;
        }
        if condition(row.get()) {
            self.index.remove(key, seen);
            self.meter.remove(row.get().bytes());
            row.remove();
            return true;
        }
        self.reindex(&key, row.get_mut(), seen);
        false
    }

    /// Applies a decision to a row and restores the invariant.
    fn change<R>(&self, key: &StoreKey, row: &mut Row, decide: impl FnOnce(&mut Row) -> R) -> R {
        let (before, bytes) = (index_entry(row), row.bytes());
        let answer = decide(row);
        self.meter.resize(bytes, row.bytes());
        // A later deadline is indexed when the old one passes: a renewal costs the index nothing.
        if row.completed() != before.completed || row.deadline() < before.deadline {
            self.reindex(key, row, before);
        }
        answer
    }

    /// Moves a row's entry to the row's deadline.
    fn reindex(&self, key: &StoreKey, row: &mut Row, from: IndexEntry) {
        row.indexed = row.deadline();
        self.index.replace(*key, from, index_entry(row));
    }
}

#[cfg(test)]
impl Table {
    /// Checks the invariant, row by row.
    pub(super) fn audit(&self) {
        let (mut rows, mut bytes) = (0, 0);
        self.rows.each(|key, row| {
            assert!(
                self.index.holds(*key, index_entry(row)),
                "the index has the entry of every row"
            );
            assert!(
                row.indexed <= row.deadline(),
                "no entry is later than its row's expiry"
            );
            rows += 1;
            bytes += row.bytes();
        });
        assert_eq!(self.index.len(), rows, "the index has no other entries");
        assert_eq!(
            (self.usage().records, self.usage().bytes),
            (rows, bytes),
            "the meter is exact"
        );
    }
}

/// The entry that the index holds for this row.
fn index_entry(row: &Row) -> IndexEntry {
    IndexEntry {
        completed: row.completed(),
        deadline: row.indexed,
    }
}
