//! [`Cached`]: a wrapper that keeps outcomes in this process's memory, in front of any store.
//!
//! A client that retries in a loop asks for the same outcome again and again. An outcome never changes before it
//! expires, so a process may keep a copy. Replays from the copy cost no round trip, and continue while the store is
//! down.
//!
//! # The rules
//!
//! 1. Only outcomes are kept, tombstones included. The store alone decides who owns a key: answers such as in
//!    flight, mismatch or unknown are never kept.
//! 2. No outcome is kept beyond its expiry. An outcome completed by this process is kept for its ttl, counted from
//!    before its *acquire*: the completion may have been a repetition, so no later time is certain. For an outcome
//!    completed elsewhere the expiry is looked up in the store ([`Store::get`]), once and in the background, so
//!    that no replay waits for it, with at most 64 look-ups at a time.
//! 3. A claim with another fingerprint is a mismatch, as in the store.
//! 4. Memory is bounded by the bytes of the outcomes; moka chooses which to keep.
//!
//! # Caveats
//!
//! - Deleting a completed record in the store by hand leaves the copy here; [`Cached::clear`] removes it.
//! - Time is measured by this machine's clock and the store's. It is assumed that neither runs faster than the
//!   other by more than one part in a thousand, and that the store's clock is not set forward.
//!
//! # Example
//!
//! ```
//! use idempotent_runtime::{Idempotency, MemoryStore, store::cached::Cached};
//!
//! // Useful in front of a remote store.
//! let store = Cached::new(MemoryStore::new(), 64 << 20);
//! let idempotency = Idempotency::builder().store(store).build()?;
//! # Ok::<_, idempotent_runtime::BuildError>(())
//! ```

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use dashmap::DashMap;
use moka::{Expiry, sync::Cache};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    Store,
    admin::{Administrable, Event, Kept, Seen},
    erased::{ErasedStore, Operation},
    error::{StoreError, StoreErrorKind},
    inspect::Inspectable,
    outbox::OutboxStore,
    record::{Acquisition, Claim, Held, Outcome, Record, RecordState, Write},
    steps::StepLog,
    token::Token,
    transaction::Transactions,
    wake::Wake,
};
use crate::{fingerprint::Fingerprint, scope::StoreKey};

/// The approximate size of an outcome besides its bytes: its key, its times and moka's own bookkeeping.
const OVERHEAD: usize = 256;
/// The time-out of a look-up of an expiry.
const LOOKUP_TIME_OUT: Duration = Duration::from_secs(10);
/// The largest number of concurrent look-ups. An outcome beyond it is looked up at its next replay.
const MAX_LOOKUPS: usize = 64;
/// The largest number of leases to remember. A forgotten one costs a look-up later.
const MAX_LEASES: u64 = 65_536;
/// How long to remember a lease: by default no execution lives longer.
const LEASE: Duration = Duration::from_secs(15 * 60);
/// An outcome is dropped earlier than it expires by this fraction of its ttl, for clocks that run at different
/// speeds.
const DRIFT: u32 = 1_000;

/// Keeps outcomes in memory in front of another store. See the [module documentation](self).
///
/// Clones share the outcomes.
pub struct Cached<S> {
    inner: Arc<S>,
    memory: Memory,
}

/// The outcomes and leases of this process. Not generic over the store, so that moka's code is compiled once, in this
/// crate, instead of once per store in each crate that uses one.
#[derive(Clone)]
struct Memory {
    outcomes: Cache<StoreKey, CachedOutcome>,
    /// The leases of this process: a completion carries neither the fingerprint nor the time of its acquire.
    leases: Cache<Token, Lease>,
    /// The keys whose expiry is being looked up.
    pending: Arc<DashMap<StoreKey, ()>>,
    lookups: Arc<Semaphore>,
}

/// An outcome, and until when it may be replayed.
#[derive(Clone)]
struct CachedOutcome {
    fingerprint: Fingerprint,
    outcome: Outcome,
    until: Instant,
}

#[derive(Clone, Copy)]
struct Lease {
    fingerprint: Fingerprint,
    /// A moment before the lease began.
    since: Instant,
}

impl<S: Store> Cached<S> {
    /// Keeps at most `max_bytes` of outcomes in front of this store.
    #[must_use]
    pub fn new(store: S, max_bytes: u64) -> Self {
        Self {
            inner: Arc::new(store),
            memory: Memory::new(max_bytes),
        }
    }

    /// The inner store.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Drops all copies; the store still has the outcomes.
    pub fn clear(&self) {
        self.memory.outcomes.invalidate_all();
    }
}
impl<S: Store> Store for Cached<S> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        if let Some(answer) = self.memory.answer(claim) {
            return Ok(answer);
        }
        let since = Instant::now();
        let acquisition = self.inner.acquire(claim).await?;
        match acquisition {
            Acquisition::Acquired { .. } => self.memory.acquired(claim, since),
            Acquisition::Completed(_) => {
                self.memory.look_up(Arc::clone(&self.inner) as _, claim.key);
            }
            _ => {}
        }
        Ok(acquisition)
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.inner.renew(held).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        let write = self.inner.complete(held, outcome).await?;
        if write == Write::Applied {
            self.memory.completed(held, outcome);
        }
        Ok(write)
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.inner.release(key, token).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.inner.abandon(key, token).await
    }

    /// A replay from memory waits for nothing.
    fn try_acquire(&self, claim: &Claim) -> Option<Result<Acquisition, StoreError>> {
        self.memory.answer(claim).map(Ok)
    }

    /// Always asks the store: an inspection must show what is stored.
    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.inner.get(key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.inner.purge_expired(limit).await
    }

    fn attach(&self, wake: Wake) {
        self.inner.attach(wake);
    }

    /// The inner store's: a list must show what is stored.
    fn inspectable(&self) -> Option<&dyn Inspectable> {
        self.inner.inspectable()
    }

    fn step_log(&self) -> Option<&dyn StepLog> {
        self.inner.step_log()
    }

    fn outbox(&self) -> Option<&dyn OutboxStore> {
        self.inner.outbox()
    }

    fn transactions(&self) -> Option<&dyn Transactions> {
        self.inner.transactions()
    }

    fn administrable(&self) -> Option<&dyn Administrable> {
        self.inner.administrable()?;
        Some(self)
    }
}

/// The inner store's, for a cache whose inner store is administrable: a record that is forgotten here is not replayed here.
impl<S: Store> Administrable for Cached<S> {
    fn append<'a>(&'a self, event: &'a Event) -> Operation<'a, ()> {
        self.administer(|inner| inner.append(event))
    }

    fn events(&self, limit: usize) -> Operation<'_, Vec<Kept>> {
        self.administer(|inner| inner.events(limit))
    }

    fn forget<'a>(&'a self, record: &'a Seen) -> Operation<'a, Write> {
        let forgotten = self.administer(|inner| inner.forget(record));
        Box::pin(async move {
            let forgotten = forgotten.await;
            // Also after an error: the store may have forgotten it.
            self.memory.outcomes.invalidate(&record.key);
            forgotten
        })
    }
}

impl<S: Store> Cached<S> {
    fn administer<'a, T: Send + 'a>(
        &'a self,
        operation: impl FnOnce(&'a dyn Administrable) -> Operation<'a, T>,
    ) -> Operation<'a, T> {
        if let Some(inner) = self.inner.administrable() {
            return operation(inner);
        }
        let error = StoreError::new(self.inner.name(), StoreErrorKind::Refused);
        Box::pin(async { Err(error.with_source("the store is not administrable")) })
    }
}

impl Memory {
    fn new(max_bytes: u64) -> Self {
        let outcomes = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, kept: &CachedOutcome| kept.weight())
            .expire_after(UntilExpiry)
            .build();
        let leases = Cache::builder()
            .max_capacity(MAX_LEASES)
            .time_to_live(LEASE)
            .build();
        Self {
            outcomes,
            leases,
            pending: Arc::new(DashMap::new()),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }

    /// The answer to this claim, if it needs no store.
    fn answer(&self, claim: &Claim) -> Option<Acquisition> {
        let kept = self.kept(&claim.key)?;
        Some(if kept.fingerprint == claim.fingerprint {
            Acquisition::Completed(kept.outcome)
        } else {
            Acquisition::Mismatch {
                fingerprint: kept.fingerprint,
            }
        })
    }

    fn kept(&self, key: &StoreKey) -> Option<CachedOutcome> {
        // Checked here, because moka removes an expired entry only some time later.
        let kept = self.outcomes.get(key)?;
        (Instant::now() < kept.until).then_some(kept)
    }

    /// Remembers the lease that this claim acquired.
    fn acquired(&self, claim: &Claim, since: Instant) {
        let fingerprint = claim.fingerprint;
        self.leases
            .insert(claim.token, Lease { fingerprint, since });
    }

    /// Keeps the outcome of a completion that was applied, if its acquire is known: the age of a completion that may be
    /// a repetition is not.
    fn completed(&self, held: &Held, outcome: &Outcome) {
        if let Some(Lease { fingerprint, since }) = self.leases.remove(&held.token) {
            self.keep(held.key, fingerprint, outcome.clone(), since, held.ttl);
        }
    }

    /// Looks up in the background when the outcome expires that the store just returned, and keeps it.
    fn look_up(&self, store: Arc<dyn ErasedStore>, key: StoreKey) {
        let Ok(permit) = Arc::clone(&self.lookups).try_acquire_owned() else {
            return;
        };
        if self.pending.insert(key, ()).is_some() {
            return;
        }
        let this = self.clone();
        let lookup = Lookup(Arc::clone(&self.pending), key, permit);
        tokio::spawn(async move {
            let before = Instant::now();
            let found = timeout(LOOKUP_TIME_OUT, store.get(&key)).await;
            let found = found.unwrap_or_else(|elapsed| {
                let error = StoreError::new(store.name(), StoreErrorKind::Unavailable);
                Err(error.with_source(elapsed))
            });
            match found {
                Ok(Some(record)) => this.keep_record(key, record, before),
                // It has expired meanwhile.
                Ok(None) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "an outcome is not kept: its expiry is unknown");
                }
            }
            drop(lookup);
        });
    }

    fn keep_record(&self, key: StoreKey, record: Record, before: Instant) {
        if let RecordState::Completed(outcome) = record.state {
            self.keep(key, record.fingerprint, outcome, before, record.expires_in);
        }
    }

    fn keep(
        &self,
        key: StoreKey,
        fingerprint: Fingerprint,
        outcome: Outcome,
        since: Instant,
        lives: Duration,
    ) {
        // An expiry too far away for an `Instant` needs no special case: the store is asked each time.
        if let Some(until) = since.checked_add(lives.saturating_sub(lives / DRIFT)) {
            let kept = CachedOutcome {
                fingerprint,
                outcome,
                until,
            };
            self.outcomes.insert(key, kept);
        }
    }
}

impl CachedOutcome {
    fn weight(&self) -> u32 {
        let bytes = match &self.outcome {
            Outcome::Response(response) => response.as_bytes().len(),
            Outcome::Tombstone => 0,
        };
        u32::try_from(bytes.saturating_add(OVERHEAD)).unwrap_or(u32::MAX)
    }
}

/// Makes moka remove an outcome when it may no longer be replayed.
struct UntilExpiry;

impl Expiry<StoreKey, CachedOutcome> for UntilExpiry {
    fn expire_after_create(
        &self,
        _: &StoreKey,
        kept: &CachedOutcome,
        _: StdInstant,
    ) -> Option<Duration> {
        Some(kept.until.saturating_duration_since(Instant::now()))
    }

    fn expire_after_update(
        &self,
        key: &StoreKey,
        kept: &CachedOutcome,
        now: StdInstant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, kept, now)
    }
}

/// A look-up, until it ends or is dropped.
struct Lookup(
    Arc<DashMap<StoreKey, ()>>,
    StoreKey,
    #[expect(dead_code, reason = "held until the look-up ends")] OwnedSemaphorePermit,
);

impl Drop for Lookup {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

// Not derived: that would require the inner store to be `Clone`.
impl<S> Clone for Cached<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            memory: self.memory.clone(),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("inner", &self.inner)
            .field("outcomes", &self.memory.outcomes.entry_count())
            .finish_non_exhaustive()
    }
}
