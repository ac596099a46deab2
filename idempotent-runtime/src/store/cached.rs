//! [`Cached`]: outcomes in this process's memory, in front of any store.
//!
//! A client that retries in a loop asks for the same outcome again and again. An outcome never changes before
//! it expires, so it may be kept where it is asked for: such replays cost no round trip, and go on while the
//! store is down.
//!
//! # The rules
//!
//! 1. Only outcomes are kept, tombstones among them. Who owns a key is the store's to say, each time: answers
//!    such as in flight, mismatch or unknown are never remembered.
//! 2. Nothing is kept beyond its expiry. An outcome completed here is kept for its ttl from before its
//!    *acquire*, the latest time that is certain even if its completion was repeated. For one that was
//!    completed elsewhere the store is asked ([`Store::get`]), once and aside, so that no replay waits for it, and
//!    with at most 64 questions at a time.
//! 3. A claim with another fingerprint is a mismatch here as in the store.
//! 4. Memory is bounded by the bytes of the outcomes; which of them are worth it is moka's choice.
//!
//! # Caveats
//!
//! - Removing a completed record by hand in the store does not remove it here; [`Cached::clear`] does.
//! - Time is measured by this machine's clock and the store's. It is assumed that neither gains more than one
//!   part in a thousand on the other, and that the store's is not set forward.
//!
//! # Example
//!
//! ```
//! use idempotent_runtime::{Idempotency, MemoryStore, store::cached::Cached};
//!
//! // Worth it in front of a store that is far away.
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
    error::{StoreError, StoreErrorKind},
    record::{Acquisition, Claim, Held, Outcome, Record, RecordState, Write},
    token::Token,
    wake::Wake,
};
use crate::{fingerprint::Fingerprint, scope::StoreKey};

/// What an outcome takes besides its bytes, about: its key, its times and moka's own bookkeeping.
const OVERHEAD: usize = 256;
/// How long to wait for the expiry of an outcome.
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// Questions for an expiry that are under way at most. An outcome that is not asked about is asked about with its
/// next replay.
const LOOKS: usize = 64;
/// Leases to remember at most. One that is forgotten costs a question to the store later.
const LEASES: u64 = 65_536;
/// How long to remember a lease: no execution lives longer, unless it was configured to.
const LEASE: Duration = Duration::from_secs(15 * 60);
/// The part of its retention by which an outcome is forgotten early, for clocks that run at different speeds.
const DRIFT: u32 = 1_000;

/// Keeps outcomes in memory in front of another store. See the [module documentation](self).
///
/// Clones share what is kept.
pub struct Cached<S> {
    inner: Arc<S>,
    outcomes: Cache<StoreKey, Kept>,
    /// The leases of this process, for what a completion does not say.
    leases: Cache<Token, Lease>,
    /// Outcomes whose expiry is being asked for.
    asked: Arc<DashMap<StoreKey, ()>>,
    looks: Arc<Semaphore>,
}

/// An outcome, and until when it may be shown.
#[derive(Clone)]
struct Kept {
    fingerprint: Fingerprint,
    outcome: Outcome,
    until: Instant,
}

#[derive(Clone, Copy)]
struct Lease {
    fingerprint: Fingerprint,
    /// A time before the lease began.
    since: Instant,
}

impl<S: Store> Cached<S> {
    /// Keeps at most `max_bytes` of outcomes in front of this store.
    #[must_use]
    pub fn new(store: S, max_bytes: u64) -> Self {
        let outcomes = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, kept: &Kept| kept.weight())
            .expire_after(Forget)
            .build();
        let leases = Cache::builder()
            .max_capacity(LEASES)
            .time_to_live(LEASE)
            .build();
        Self {
            inner: Arc::new(store),
            outcomes,
            leases,
            asked: Arc::new(DashMap::new()),
            looks: Arc::new(Semaphore::new(LOOKS)),
        }
    }

    /// The store behind.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Forgets all outcomes; the store still has them.
    pub fn clear(&self) {
        self.outcomes.invalidate_all();
    }

    fn kept(&self, key: &StoreKey) -> Option<Kept> {
        // By our clock: moka frees the memory, when it comes to it.
        let kept = self.outcomes.get(key)?;
        (Instant::now() < kept.until).then_some(kept)
    }

    /// Asks when the outcome expires that the store just gave, and keeps it.
    fn learn(&self, key: StoreKey) {
        let Ok(look) = Arc::clone(&self.looks).try_acquire_owned() else {
            return;
        };
        if self.asked.insert(key, ()).is_some() {
            return;
        }
        let this = self.clone();
        let asking = Asking(Arc::clone(&self.asked), key, look);
        tokio::spawn(async move {
            let before = Instant::now();
            let got = timeout(LONGEST_LOOK, this.inner.get(&key)).await;
            let got = got.unwrap_or_else(|elapsed| {
                let late = StoreError::new(this.inner.name(), StoreErrorKind::Unavailable);
                Err(late.with_source(elapsed))
            });
            match got {
                Ok(Some(record)) => this.keep_record(key, record, before),
                // Expired in between.
                Ok(None) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "an outcome is not kept: its expiry is unknown");
                }
            }
            drop(asking);
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
        // What lives for ever by the numbers is not worth a special case: it is asked for each time.
        if let Some(until) = since.checked_add(lives.saturating_sub(lives / DRIFT)) {
            let kept = Kept {
                fingerprint,
                outcome,
                until,
            };
            self.outcomes.insert(key, kept);
        }
    }
}

impl<S: Store> Store for Cached<S> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        if let Some(kept) = self.kept(&claim.key) {
            return Ok(if kept.fingerprint == claim.fingerprint {
                Acquisition::Completed(kept.outcome)
            } else {
                Acquisition::Mismatch
            });
        }
        let since = Instant::now();
        let acquisition = self.inner.acquire(claim).await?;
        match acquisition {
            Acquisition::Acquired { .. } => {
                let fingerprint = claim.fingerprint;
                self.leases
                    .insert(claim.token, Lease { fingerprint, since });
            }
            Acquisition::Completed(_) => self.learn(claim.key),
            _ => {}
        }
        Ok(acquisition)
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.inner.renew(held).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        let write = self.inner.complete(held, outcome).await?;
        // Only if the acquire is known: of a completion that may be a repetition, nobody knows how old it is.
        if write == Write::Applied
            && let Some(Lease { fingerprint, since }) = self.leases.remove(&held.token)
        {
            self.keep(held.key, fingerprint, outcome.clone(), since, held.ttl);
        }
        Ok(write)
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.inner.release(key, token).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.inner.abandon(key, token).await
    }

    /// Always the store's answer: who inspects wants to know what is there.
    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.inner.get(key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.inner.purge_expired(limit).await
    }

    fn attach(&self, wake: Wake) {
        self.inner.attach(wake);
    }
}

impl Kept {
    fn weight(&self) -> u32 {
        let bytes = match &self.outcome {
            Outcome::Response(response) => response.as_bytes().len(),
            Outcome::Tombstone => 0,
        };
        u32::try_from(bytes.saturating_add(OVERHEAD)).unwrap_or(u32::MAX)
    }
}

/// Has moka free what may not be shown any more.
struct Forget;

impl Expiry<StoreKey, Kept> for Forget {
    fn expire_after_create(&self, _: &StoreKey, kept: &Kept, _: StdInstant) -> Option<Duration> {
        Some(kept.until.saturating_duration_since(Instant::now()))
    }

    fn expire_after_update(
        &self,
        key: &StoreKey,
        kept: &Kept,
        now: StdInstant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, kept, now)
    }
}

/// A question to the store, until it is answered or given up.
struct Asking(
    Arc<DashMap<StoreKey, ()>>,
    StoreKey,
    #[expect(dead_code, reason = "given back with the rest")] OwnedSemaphorePermit,
);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

// Not derived, because the store itself need not be `Clone`.
impl<S> Clone for Cached<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            outcomes: self.outcomes.clone(),
            leases: self.leases.clone(),
            asked: Arc::clone(&self.asked),
            looks: Arc::clone(&self.looks),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("inner", &self.inner)
            .field("outcomes", &self.outcomes.entry_count())
            .finish_non_exhaustive()
    }
}
