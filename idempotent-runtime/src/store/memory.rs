//! [`MemoryStore`]: records in this process's memory.
//!
//! Unlike every other store it protects one process only, and its records end with the process. It is the
//! default, the reference for the contract, and the right store for tests and single-node services whose
//! clients can live with a key that is forgotten at a restart.
//!
//! # The rules
//!
//! 1. Every operation decides under the lock of its own record and finishes without waiting: there is no point at
//!    which a dropped operation could have happened by half, and no lock that all keys share.
//! 2. Responses are shared. A replay clones a handle, never a body.
//! 3. The clock is [`tokio::time::Instant`], so `tokio::time::pause` and `advance` move it in tests.
//! 4. Memory is bounded by [`max_records`](MemoryStoreBuilder::max_records) and
//!    [`max_bytes`](MemoryStoreBuilder::max_bytes). At a bound, expired records make room first; if there are
//!    none, a key that is new is refused with [`StoreErrorKind::Full`]. A record that exists is served in any
//!    case: its lease can be renewed and its outcome stored.
//! 5. Expiry costs what expired. Every acquire also deletes a few expired records, so a store that is used
//!    needs no background task; [`Store::purge_expired`] empties one that is not.
//!
//! # Caveats
//!
//! - `max_bytes` counts encoded responses. A record needs about 300 bytes of bookkeeping besides, bounded by
//!   `max_records`.
//! - Completions are never refused, so the responses of the executions in flight when `max_bytes` is
//!   reached come on top of it.
//! - The memory of the table itself is reused, not returned to the allocator.
//!
//! # Example
//!
//! ```
//! use idempotent_runtime::store::memory::MemoryStore;
//!
//! let store = MemoryStore::builder().max_records(100_000).max_bytes(64 << 20).build();
//! assert!(store.is_empty());
//! ```

use std::fmt;

use self::{
    clock::Clock,
    table::{Claimed, Limits, Table},
    wakes::Wakes,
};
use super::{
    Store,
    error::{StoreError, StoreErrorKind},
    record::{Acquisition, Claim, Held, Outcome, Record, Write},
    token::Token,
    wake::Wake,
};
use crate::{scope::StoreKey, sync::Arc};

mod clock;
mod index;
#[cfg(all(test, idempotent_shuttle))]
mod interleavings;
mod map;
mod row;
mod table;
#[cfg(all(test, not(any(idempotent_loom, idempotent_shuttle))))]
mod tests;
mod usage;
mod wakes;

pub use usage::Usage;

/// How many records a store holds unless told otherwise.
const MAX_RECORDS: usize = 1_000_000;
/// How many bytes of responses a store holds unless told otherwise.
const MAX_BYTES: usize = 256 << 20;
/// Expired records deleted by each acquire. Each acquire adds at most one record, so any number above one
/// shrinks a backlog; a small one keeps the cost of a single request flat.
const SWEEP: usize = 4;
/// Expired records deleted at once when a bound is reached, so that the next requests find room.
const MAKE_ROOM: usize = 64;

/// Keeps records in memory, for one process. See the [module documentation](self).
///
/// Clones share their records.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    table: Table,
    wakes: Wakes,
    evict: bool,
}

/// Sets the bounds of a [`MemoryStore`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct MemoryStoreBuilder {
    limits: Limits,
    evict: bool,
}

impl MemoryStore {
    /// An empty store with the default bounds: 1,000,000 records or 256 MiB of responses.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts from the default bounds.
    pub fn builder() -> MemoryStoreBuilder {
        let limits = Limits {
            records: MAX_RECORDS,
            bytes: MAX_BYTES,
        };
        MemoryStoreBuilder {
            limits,
            evict: false,
        }
    }

    /// The number of records, expired ones included until they are purged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.usage().records
    }

    /// Whether there is no record at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the store holds now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.table.usage()
    }
}

#[cfg(test)]
impl MemoryStore {
    /// Checks that rows, index and usage agree.
    fn audit(&self) {
        self.shared.table.audit();
    }

    /// Moves this store's clock, which stands still otherwise.
    #[cfg(idempotent_shuttle)]
    fn advance(&self, by: std::time::Duration) {
        self.shared.clock.advance(by);
    }
}

impl MemoryStoreBuilder {
    /// The largest number of records; a new key beyond it is refused. 1,000,000 unless set.
    pub fn max_records(mut self, records: usize) -> Self {
        self.limits.records = records;
        self
    }

    /// The bytes of stored responses from which on a new key is refused. 256 MiB unless set.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// At a bound, forgets the completed record that is nearest to its expiry instead of refusing a new key.
    /// With one ttl for all records, that is the oldest.
    ///
    /// **This breaks the promise for the forgotten key**: a retry that arrives later executes again. Choose
    /// it only where a second execution is cheaper than a refusal. Executions in flight, and those whose
    /// outcome is unknown, are never forgotten: when nothing else is left, new keys are refused all the same.
    pub fn evict_oldest_completed(mut self) -> Self {
        self.evict = true;
        self
    }

    /// An empty store with these bounds.
    #[must_use]
    pub fn build(self) -> MemoryStore {
        let shared = Shared {
            clock: Clock::new(),
            table: Table::new(self.limits),
            wakes: Wakes::default(),
            evict: self.evict,
        };
        MemoryStore {
            shared: Arc::new(shared),
        }
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.shared.acquire(claim)
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        let now = self.shared.clock.now();
        Ok(self
            .shared
            .table
            .write(&held.key, |row| row.renew(held, now)))
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        let now = self.shared.clock.now();
        let write = self
            .shared
            .table
            .write(&held.key, |row| row.complete(held, outcome, now));
        Ok(self.shared.announce(&held.key, write))
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let write = self.shared.table.release(key, token);
        self.shared.report();
        Ok(self.shared.announce(key, write))
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let now = self.shared.clock.now();
        let write = self.shared.table.write(key, |row| row.abandon(token, now));
        Ok(self.shared.announce(key, write))
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        Ok(self.shared.table.get(key, self.shared.clock.now()))
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        let purged = self.shared.table.purge(self.shared.clock.now(), limit);
        self.shared.report();
        Ok(purged)
    }

    fn attach(&self, wake: Wake) {
        self.shared.wakes.attach(wake);
    }
}

const NAME: &str = "memory";

impl Shared {
    fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        let now = self.clock.now();
        let acquisition = loop {
            match self.table.claim(claim, now) {
                Claimed::Decided(acquisition) => break acquisition,
                // Whoever takes the room that was just made has made progress: the loop ends for somebody.
                Claimed::NoRoom if self.make_room(now) => {}
                Claimed::NoRoom => return Err(StoreError::new(NAME, StoreErrorKind::Full)),
            }
        };
        // After the decision: a record that was just reused keeps counting its attempts.
        self.table.sweep(&claim.key, now, SWEEP);
        self.report();
        Ok(acquisition)
    }

    /// Whether a record less is held now.
    fn make_room(&self, now: u64) -> bool {
        self.table.purge(now, MAKE_ROOM) > 0 || (self.evict && self.table.evict())
    }

    /// Shows the number of records; nothing without the `metrics` feature.
    fn report(&self) {
        crate::observe::records(NAME, || self.table.usage().records);
    }

    /// Wakes the waiters of a record that changed. Called with no lock held: what they do is not ours.
    fn announce(&self, key: &StoreKey, write: Write) -> Write {
        if write == Write::Applied {
            self.wakes.key(key);
        }
        write
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
