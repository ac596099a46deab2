//! One shard of the table: its records, their expiry and its share of the room, under one lock.
//!
//! Records in flight and completed ones are kept apart:
//!
//! - Those in flight are few, come and go with each request, and are often renewed. They stand in no order of expiry: a
//!   time before which none of them expires says when a look at all of them is worth it.
//! - Completed ones are many and never change. Each has one entry in [`Expiry`].
//!
//! A record is one allocation from its claim to its expiry, found by a slot of sixteen bytes.
//!
//! The invariants: a key has at most one record; every completed record has its entry in `expiry`; `share` has counted
//! exactly what the shard holds.

use std::ops::RangeInclusive;

use hashbrown::HashTable;

use super::{
    expiry::{Due, Expiry},
    row::Row,
    usage::{Admission, Budget, Share},
};
use crate::{
    scope::StoreKey,
    store::{
        admin::Seen,
        record::{Acquisition, Claim, Write},
        token::Token,
    },
};

/// What every operation on a shard needs: the key's hash, the time, and what all shards share.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) hash: u64,
    pub(super) now: u64,
    pub(super) budget: &'a Budget,
}

/// What became of a claim.
pub(super) enum ClaimResult {
    Decided {
        acquisition: Acquisition,
        /// Whether it is time to look how full the store is.
        look: bool,
    },
    /// The key is new and the store is at a bound.
    NoRoom,
}

pub(super) struct Shard {
    in_flight: HashTable<Slot>,
    /// No record in flight expires before this time.
    quiet_until: u64,
    /// When a claim may next look through the records in flight.
    next_look: u64,
    completed: HashTable<Slot>,
    expiry: Expiry,
    share: Share,
}

/// A record, beside the hash of its key: a table that grows moves its slots and reads no record.
struct Slot {
    hash: u64,
    row: Box<Row>,
}

/// How long claims let expired records in flight be after a look through all of them, in microseconds.
const PAUSE: u64 = 1_000_000;

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            in_flight: HashTable::new(),
            quiet_until: u64::MAX,
            next_look: 0,
            completed: HashTable::new(),
            expiry: Expiry::default(),
            share: Share::default(),
        }
    }

    pub(super) fn claim(&mut self, claim: &Claim, at: Context<'_>) -> ClaimResult {
        let key = &claim.key;
        let found = |slot: &Slot| slot.is(at.hash, key);
        if let Some(Slot { row, .. }) = self.in_flight.find_mut(at.hash, found) {
            let bytes = row.bytes();
            let acquisition = row.acquire(claim, at.now);
            // The steps of an expired record went.
            self.share.resize(bytes, row.bytes(), at.budget);
            self.quiet_until = self.quiet_until.min(row.deadline());
            return ClaimResult::decided(acquisition);
        }
        if let Ok(mut found) = self.completed.find_entry(at.hash, found) {
            let row = &mut found.get_mut().row;
            let bytes = row.bytes();
            let acquisition = row.acquire(claim, at.now);
            if !row.completed() {
                // It had expired, and counts its attempts on. Its entry is passed over when it is due.
                let (slot, _) = found.remove();
                self.share.resize(bytes, 0, at.budget);
                self.put_in_flight(slot.row, at);
            }
            return ClaimResult::decided(acquisition);
        }
        match self.share.admit(at.budget) {
            Admission::Full => ClaimResult::NoRoom,
            Admission::Admitted { asked } => {
                self.put_in_flight(Box::new(Row::new(claim, at.now)), at);
                ClaimResult::Decided {
                    acquisition: Acquisition::Acquired { attempt: 1 },
                    look: asked,
                }
            }
        }
    }

    /// Writes to a record that must exist.
    pub(super) fn write(
        &mut self,
        key: &StoreKey,
        at: Context<'_>,
        decide: impl FnOnce(&mut Row) -> Write,
    ) -> Write {
        let of_key = |slot: &Slot| slot.is(at.hash, key);
        let Ok(mut found) = self.in_flight.find_entry(at.hash, of_key) else {
            // A completed record does not change: this only finds the answer.
            return self
                .completed
                .find_mut(at.hash, of_key)
                .map_or(Write::Missing, |slot| decide(&mut slot.row));
        };
        let row = &mut found.get_mut().row;
        let bytes = row.bytes();
        let write = decide(row);
        if row.completed() {
            let (slot, _) = found.remove();
            self.share.resize(bytes, 0, at.budget);
            self.put_completed(slot, at);
        } else {
            self.share.resize(bytes, row.bytes(), at.budget);
            self.quiet_until = self.quiet_until.min(row.deadline());
        }
        write
    }

    pub(super) fn release(&mut self, key: &StoreKey, token: &Token, at: Context<'_>) -> Write {
        let of_key = |slot: &Slot| slot.is(at.hash, key);
        if let Ok(found) = self.in_flight.find_entry(at.hash, of_key) {
            if !found.get().row.holds(token) {
                return Write::Fenced;
            }
            let (slot, _) = found.remove();
            self.share.resize(slot.row.bytes(), 0, at.budget);
            self.share.leave(at.budget);
            return Write::Applied;
        }
        match self.get(key, at.hash) {
            Some(_) => Write::Fenced,
            None => Write::Missing,
        }
    }

    /// Removes this record if it is completed and still the one that was seen. Its entry is passed over when it is due.
    pub(super) fn forget(&mut self, seen: &Seen, at: Context<'_>) -> (Write, Option<Box<Row>>) {
        let is_key = |slot: &Slot| slot.is(at.hash, &seen.key);
        let Ok(found) = self.completed.find_entry(at.hash, is_key) else {
            return match self.in_flight.find(at.hash, is_key) {
                Some(slot) if !slot.row.expired(at.now) => (Write::Fenced, None),
                _ => (Write::Missing, None),
            };
        };
        if found.get().row.expired(at.now) {
            return (Write::Missing, None);
        }
        if !found.get().row.is(seen) {
            return (Write::Fenced, None);
        }
        let (slot, _) = found.remove();
        self.share.resize(slot.row.bytes(), 0, at.budget);
        self.share.leave(at.budget);
        (Write::Applied, Some(slot.row))
    }

    pub(super) fn get(&self, key: &StoreKey, hash: u64) -> Option<&Row> {
        let of_key = |slot: &Slot| slot.is(hash, key);
        let in_flight = self.in_flight.find(hash, of_key);
        let slot = in_flight.or_else(|| self.completed.find(hash, of_key))?;
        Some(&slot.row)
    }

    /// The records that have one of these hashes, in no order.
    pub(super) fn rows<'a>(
        &'a self,
        among: &'a RangeInclusive<u64>,
    ) -> impl Iterator<Item = (u64, &'a Row)> {
        let slots = self.in_flight.iter().chain(&self.completed);
        slots
            .filter(|slot| among.contains(&slot.hash))
            .map(|slot| (slot.hash, &*slot.row))
    }

    /// Removes the completed record that expires first, if it has expired. The caller drops it once the lock is free.
    pub(super) fn pop_expired(&mut self, now: u64, budget: &Budget) -> Option<Box<Row>> {
        while let Some(due) = self.expiry.pop(now) {
            let expires = |slot: &Slot| slot.hash == due.hash && slot.row.deadline() == due.at;
            if let Ok(found) = self.completed.find_entry(due.hash, expires) {
                let (slot, _) = found.remove();
                self.share.resize(slot.row.bytes(), 0, budget);
                self.share.leave(budget);
                return Some(slot.row);
            }
            // Else the record expired earlier and was claimed again.
        }
        None
    }

    /// When the completed record that expires first does so. An entry that was passed over may be earlier.
    pub(super) fn first_due(&self) -> Option<u64> {
        self.expiry.first().map(|due| due.at)
    }

    /// Whether a claim should look through the records in flight for expired ones.
    pub(super) fn should_look(&self, now: u64) -> bool {
        self.quiet_until <= now && self.next_look <= now
    }

    /// Removes up to `limit` expired records in flight, and returns how many it removed.
    pub(super) fn purge_in_flight(&mut self, limit: usize, at: Context<'_>) -> usize {
        if self.quiet_until > at.now {
            return 0;
        }
        let (mut purged, mut bytes, mut earliest) = (0, 0, u64::MAX);
        self.in_flight.retain(|Slot { row, .. }| {
            let remove = purged < limit && row.expired(at.now);
            if remove {
                purged += 1;
                bytes += row.bytes();
            } else {
                earliest = earliest.min(row.deadline());
            }
            !remove
        });
        self.share.resize(bytes, 0, at.budget);
        for _ in 0..purged {
            self.share.leave(at.budget);
        }
        self.quiet_until = earliest;
        self.next_look = at.now.saturating_add(PAUSE);
        purged
    }

    /// Gives all credit back to the budget; returns whether that may have made room.
    pub(super) fn surrender(&mut self, budget: &Budget) -> bool {
        self.share.surrender(budget)
    }

    pub(super) fn records(&self) -> usize {
        self.in_flight.len() + self.completed.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.share.bytes()
    }

    fn put_in_flight(&mut self, row: Box<Row>, at: Context<'_>) {
        self.quiet_until = self.quiet_until.min(row.deadline());
        let hash = at.hash;
        self.in_flight
            .insert_unique(hash, Slot { hash, row }, |slot| slot.hash);
    }

    fn put_completed(&mut self, slot: Slot, at: Context<'_>) {
        let due = Due {
            at: slot.row.deadline(),
            hash: at.hash,
        };
        self.expiry.insert(due.at.saturating_sub(at.now), due);
        self.share.resize(0, slot.row.bytes(), at.budget);
        self.completed
            .insert_unique(at.hash, slot, |slot| slot.hash);
    }
}

impl Slot {
    fn is(&self, hash: u64, key: &StoreKey) -> bool {
        self.hash == hash && self.row.key() == key
    }
}

impl ClaimResult {
    fn decided(acquisition: Acquisition) -> Self {
        Self::Decided {
            acquisition,
            look: false,
        }
    }
}

#[cfg(test)]
impl Shard {
    /// Checks the invariants, record by record.
    pub(super) fn audit(&self, hash_of: impl Fn(&StoreKey) -> u64) {
        let mut bytes = 0;
        for Slot { row, .. } in &self.in_flight {
            assert!(!row.completed(), "completed records stand apart");
            assert!(
                row.deadline() >= self.quiet_until,
                "a record in flight expires before the next look"
            );
            assert!(
                !self
                    .completed
                    .iter()
                    .any(|slot| slot.row.key() == row.key())
            );
            bytes += row.bytes();
        }
        for Slot { hash, row } in &self.completed {
            assert!(row.completed(), "records in flight stand apart");
            assert_eq!(*hash, hash_of(row.key()));
            let (at, hash) = (row.deadline(), *hash);
            assert!(self.expiry.contains(Due { at, hash }), "it has its entry");
            bytes += row.bytes();
        }
        assert_eq!(self.share.bytes(), bytes, "the bytes are exact");
    }

    pub(super) fn share(&self) -> &Share {
        &self.share
    }
}
