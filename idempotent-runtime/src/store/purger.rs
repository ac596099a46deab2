//! [`Purger`]: deletes expired records in the background.
//!
//! 1. It deletes in batches. Between two batches it rests for several times as long as the batch took, so that
//!    it never takes more than a fixed share of the store's time, however much has expired.
//! 2. When a batch was not full, nothing is left that is in reach, and it looks again after
//!    [`every`](PurgerBuilder::every).
//! 3. Every replica of a service may run one: databases skip what another one is deleting, and first looks
//!    are spread over the period.
//! 4. A store that fails is asked again after the period; a purger never ends by itself.
//!
//! Without one, expired records are reused when their key comes again, and stay otherwise. Stores that
//! delete by themselves (memory, as long as it is used; Redis) need none.
//!
//! ```no_run
//! use std::time::Duration;
//! use idempotent_runtime::store::{self, purger::Purger};
//!
//! # async fn serve() -> Result<(), store::ConnectError> {
//! let store = store::connect("postgres://app@db.internal/shop").await?;
//! let purger = Purger::builder().every(Duration::from_secs(30)).start(store.clone());
//! // … serve requests, then:
//! purger.stop().await;
//! # Ok(())
//! # }
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    Store,
    error::{StoreError, StoreErrorKind},
};

/// How long a batch may take.
const LONGEST_BATCH: Duration = Duration::from_secs(30);
/// How many times as long as a batch took the purger rests after it.
const REST: u32 = 4;

/// Deletes expired records until it is stopped or dropped. See the [module documentation](self).
#[derive(Debug)]
pub struct Purger {
    /// Closed when the purger is to end.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    purged: Arc<AtomicU64>,
}

/// Says how a [`Purger`] works.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct PurgerBuilder {
    every: Duration,
    batch: usize,
}

impl Purger {
    /// Starts from the defaults: every minute, 50 records a batch.
    pub fn builder() -> PurgerBuilder {
        PurgerBuilder {
            every: Duration::from_secs(60),
            batch: 50,
        }
    }

    /// How many records it has deleted so far, as the store told: what a batch that failed deleted is not counted.
    #[must_use]
    pub fn purged(&self) -> u64 {
        self.purged.load(Ordering::Relaxed)
    }

    /// Ends it after the batch that it is at, and says how many records it has deleted in all, as
    /// [`purged`](Self::purged) counts them.
    pub async fn stop(self) -> u64 {
        drop(self.stop);
        // It ended by itself only if it panicked, and then it has ended too.
        let _ended = self.task.await;
        self.purged.load(Ordering::Relaxed)
    }
}

impl PurgerBuilder {
    /// How often to look when there is nothing left. Every minute unless set.
    pub fn every(mut self, period: Duration) -> Self {
        self.every = period;
        self
    }

    /// The largest number of records of one batch. 50 unless set. Larger batches purge faster and make the slowest
    /// requests slower.
    pub fn batch(mut self, records: usize) -> Self {
        self.batch = records.max(1);
        self
    }

    /// Starts it on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use = "a purger that is dropped ends"]
    pub fn start(self, store: impl Store) -> Purger {
        let (stop, stopped) = oneshot::channel();
        let purged = Arc::<AtomicU64>::default();
        let task = tokio::spawn(self.run(store, stopped, Arc::clone(&purged)));
        Purger { stop, task, purged }
    }

    async fn run(
        self,
        store: impl Store,
        mut stopped: oneshot::Receiver<()>,
        total: Arc<AtomicU64>,
    ) {
        // Replicas that start together do not look together.
        let mut rest = self.every.mul_f64(rand::random());
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                () = sleep(rest) => {}
            }
            let began = Instant::now();
            // A peer that falls silent must not hold the purger, nor `stop`, for ever.
            let purge = timeout(LONGEST_BATCH, store.purge_expired(self.batch));
            let purged = purge.await.unwrap_or_else(|elapsed| {
                let late = StoreError::new(store.name(), StoreErrorKind::Unavailable);
                Err(late.with_source(elapsed))
            });
            let took = began.elapsed();
            if let Ok(purged) = purged {
                total.fetch_add(purged as u64, Ordering::Relaxed);
            }
            rest = match purged {
                Ok(purged) if purged < self.batch => self.every,
                Ok(_) => (took * REST).min(self.every),
                Err(error) => {
                    let store = store.name();
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(store, error, "expired records could not be purged");
                    self.every
                }
            };
        }
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;
    use crate::{
        fingerprint::Fingerprint,
        scope::StoreKey,
        store::{
            memory::MemoryStore,
            record::{Claim, Outcome},
            token::Token,
        },
    };

    async fn expiring(store: &MemoryStore, records: u8) {
        for n in 0..records {
            let (key, fingerprint) = (
                StoreKey::from_bytes([n; 32]),
                Fingerprint::from_bytes([0; 32]),
            );
            let (lease, ttl) = (Duration::from_secs(1), Duration::from_secs(10));
            let claim = Claim::new(key, fingerprint, Token::random(), lease, ttl);
            store.acquire(&claim).await.expect("acquire");
            store
                .complete(&claim.held(), &Outcome::Tombstone)
                .await
                .expect("complete");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everything_that_expired_is_purged_batch_by_batch() {
        let store = MemoryStore::new();
        let purger = Purger::builder()
            .every(Duration::from_secs(60))
            .batch(7)
            .start(store.clone());
        expiring(&store, 100).await;
        sleep(Duration::from_secs(9)).await;
        assert_eq!(store.len(), 100, "nothing before its time");
        sleep(Duration::from_secs(130)).await;
        assert_eq!(store.len(), 0);
        assert_eq!(purger.purged(), 100);
        assert_eq!(purger.stop().await, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_purger_that_is_stopped_or_dropped_ends() {
        let store = MemoryStore::new();
        assert_eq!(Purger::builder().start(store.clone()).stop().await, 0);
        drop(Purger::builder().start(store.clone()));
        expiring(&store, 3).await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(store.len(), 3);
    }
}
