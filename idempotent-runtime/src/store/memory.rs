//! [`MemoryStore`]: records in this process's memory.
//!
//! Unlike every other store it protects one process only, and its records end with the process. It is the
//! default, the reference for the contract, and the right store for tests and for single-node services whose
//! clients can accept that a restart forgets all keys.
//!
//! # The rules
//!
//! 1. Every operation decides under the lock of its own record and finishes without waiting. A dropped operation
//!    is therefore never half done, and no lock is shared by all keys.
//! 2. Responses are shared. A replay clones a handle, never a body.
//! 3. The clock is [`tokio::time::Instant`], so `tokio::time::pause` and `advance` move it in tests.
//! 4. Memory is bounded by [`max_records`](MemoryStoreBuilder::max_records) and
//!    [`max_bytes`](MemoryStoreBuilder::max_bytes). At a bound, expired records are deleted first; if there are
//!    none, a new key is refused with [`StoreErrorKind::Full`]. An existing record is always served: its lease can
//!    be renewed and its outcome stored. At 80 % of a bound a warning is logged.
//! 5. The cost of expiry is proportional to what expired. Every acquire also deletes a few expired records, so a
//!    store in use needs no background task; [`Store::purge_expired`] empties an idle one.
//!
//! 6. [Listing](super::inspect) holds the lock of one shard at a time: for a pass over the hashes of its records, and a look
//!    at about 256 of them. The times of a completed record are kept to ten milliseconds, and its creation only if it
//!    completed within almost three hours.
//!
//! # Caveats
//!
//! - `max_bytes` counts encoded responses, and the steps of executions in flight. Each record needs about 250 bytes more
//!   for bookkeeping, which `max_records` bounds.
//! - Completions are never refused, so the responses of executions that are in flight when `max_bytes` is reached
//!   exceed it.
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

use self::{clock::Clock, row::Row, shard::ClaimResult, table::Table, usage::Limits, wakes::Wakes};
use super::{
    Store,
    admin::Administrable,
    erased::Operation,
    error::{StoreError, StoreErrorKind},
    inspect::Inspectable,
    record::{Acquisition, Claim, Held, Outcome, Record, Write},
    steps::{StepLog, StepsRead},
    token::Token,
    wake::Wake,
};
use crate::{scope::StoreKey, sync::Arc};

mod admin;
mod clock;
mod expiry;
mod inspect;
#[cfg(all(test, idempotent_shuttle))]
mod interleavings;
mod row;
mod shard;
mod table;
#[cfg(all(test, not(any(idempotent_loom, idempotent_shuttle))))]
mod tests;
mod times;
mod usage;
mod wakes;

pub use usage::Usage;

/// The default of `max_records`.
const MAX_RECORDS: usize = 1_000_000;
/// The default of `max_bytes`.
const MAX_BYTES: usize = 1 << 30;

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
    /// What operators did.
    events: admin::Events,
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
    /// An empty store with the default bounds: 1,000,000 records or 1 GiB of responses.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// The default bounds.
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

    /// Whether the store holds no record at all.
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

    /// Advances this store's clock, which stands still otherwise.
    #[cfg(idempotent_shuttle)]
    fn advance(&self, by: std::time::Duration) {
        self.shared.clock.advance(by);
    }
}

impl MemoryStoreBuilder {
    /// The largest number of records; beyond it new keys are refused. 1,000,000 unless set.
    pub fn max_records(mut self, records: usize) -> Self {
        self.limits.records = records;
        self
    }

    /// The bytes of stored responses at which new keys are refused. 1 GiB unless set.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// At a bound, evicts the completed record that is nearest to its expiry instead of refusing a new key. If all
    /// records have the same ttl, that is the oldest.
    ///
    /// **This breaks the promise for the evicted key**: a retry that arrives later executes again. Choose it only
    /// where a second execution is cheaper than a refusal. Records in flight, also those with an unknown outcome,
    /// are never evicted: when nothing else is left, new keys are refused after all.
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
            events: admin::Events::new(),
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
        let renew = |row: &mut Row| row.renew(held, now);
        Ok(self.shared.table.write(&held.key, now, renew))
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        Ok(self.shared.complete(held, outcome))
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let write = self.shared.table.release(key, token);
        self.shared.report();
        Ok(self.shared.announce(key, write))
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let now = self.shared.clock.now();
        let abandon = |row: &mut Row| row.abandon(token, now);
        let write = self.shared.table.write(key, now, abandon);
        Ok(self.shared.announce(key, write))
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let Shared { table, clock, .. } = &*self.shared;
        Ok(table.get(key, clock.now(), clock))
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        let purged = self.shared.table.purge(self.shared.clock.now(), limit);
        self.shared.report();
        Ok(purged)
    }

    fn try_acquire(&self, claim: &Claim) -> Option<Result<Acquisition, StoreError>> {
        Some(self.shared.acquire(claim))
    }

    fn try_complete(&self, held: &Held, outcome: &Outcome) -> Option<Result<Write, StoreError>> {
        Some(Ok(self.shared.complete(held, outcome)))
    }

    fn attach(&self, wake: Wake) {
        self.shared.wakes.attach(&wake);
    }

    fn inspectable(&self) -> Option<&dyn Inspectable> {
        Some(self)
    }

    fn administrable(&self) -> Option<&dyn Administrable> {
        Some(self)
    }

    fn step_log(&self) -> Option<&dyn StepLog> {
        Some(self)
    }
}

impl StepLog for MemoryStore {
    fn read_steps<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, StepsRead> {
        Box::pin(async { Ok(self.shared.table.read_steps(key, token)) })
    }

    fn append_step<'a>(
        &'a self,
        key: &'a StoreKey,
        token: &'a Token,
        at: usize,
        bytes: &'a [u8],
    ) -> Operation<'a, Write> {
        Box::pin(async move {
            let append = |row: &mut Row| row.append_step(token, at, bytes);
            let now = self.shared.clock.now();
            Ok(self.shared.table.write(key, now, append))
        })
    }
}

const NAME: &str = "memory";

impl Shared {
    fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        let now = self.clock.now();
        let (acquisition, look) = loop {
            match self.table.claim(claim, now) {
                ClaimResult::Decided { acquisition, look } => break (acquisition, look),
                // If another claim takes the room that was just made, that one has made progress.
                ClaimResult::NoRoom if self.table.make_room(now, self.evict) => {}
                ClaimResult::NoRoom => return Err(StoreError::new(NAME, StoreErrorKind::Full)),
            }
        };
        self.report();
        if look && let Some(usage) = self.table.warning() {
            let limits = self.table.limits();
            tracing::warn!(
                records = usage.records,
                bytes = usage.bytes,
                max_records = limits.records,
                max_bytes = limits.bytes,
                "the memory store is 80 % full; when it is full, new keys get 503: raise its bounds, shorten the ttl, or \
                 move to a store that is not in memory"
            );
        }
        Ok(acquisition)
    }

    fn complete(&self, held: &Held, outcome: &Outcome) -> Write {
        let now = self.clock.now();
        let complete = |row: &mut Row| row.complete(held, outcome, now);
        let write = self.table.write(&held.key, now, complete);
        self.announce(&held.key, write)
    }

    /// Sets the gauge of records; does nothing without the `metrics` feature.
    fn report(&self) {
        crate::observe::records(NAME, || self.table.usage().records);
    }

    /// Wakes the waiters of a record that changed. Called with no lock of a shard held, because it runs the engine's code,
    /// which may read the record.
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
