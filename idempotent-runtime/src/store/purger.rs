//! [`Purger`]: deletes expired records in the background.
//!
//! 1. It deletes in batches. After each full batch it rests four times as long as the batch took, and at most one
//!    period, so that it takes about a fifth of the store's time, however much has expired.
//! 2. A batch that is not full has deleted all that can be deleted now. The next one starts after
//!    [`every`](PurgerBuilder::every).
//! 3. Every replica of a service may run one: databases skip the rows that another purger is deleting, and the
//!    first batches of the replicas are spread over the period.
//! 4. After an error the next batch starts a period later; a purger never ends by itself.
//!
//! 5. With the feature `metrics` it also looks for unknown records, see `PurgerBuilder::sample`.
//!
//! Without a purger, an expired record is reused when its key comes again and stays in the table otherwise.
//! Stores that delete by themselves (Redis, and memory as long as it is used) need no purger.
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
use crate::observe::StoreMetrics;

#[cfg(feature = "metrics")]
mod sample;

/// The time-out of a batch.
const BATCH_TIME_OUT: Duration = Duration::from_secs(30);
/// The rest after a full batch, in multiples of the time that the batch took.
const REST_FACTOR: u32 = 4;

/// Deletes expired records until it is stopped or dropped. See the [module documentation](self).
#[derive(Debug)]
pub struct Purger {
    /// Dropping it ends the task.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    purged: Arc<AtomicU64>,
}

/// Settings of a [`Purger`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct PurgerBuilder {
    every: Duration,
    batch: usize,
    #[cfg(feature = "metrics")]
    sample: usize,
}

impl Purger {
    /// The default settings: every minute, 50 records per batch.
    pub fn builder() -> PurgerBuilder {
        PurgerBuilder {
            every: Duration::from_secs(60),
            batch: 50,
            #[cfg(feature = "metrics")]
            sample: 10_000,
        }
    }

    /// How many records it has deleted so far, by the store's answers. Deletions of a batch that ended in an error
    /// are not counted.
    #[must_use]
    pub fn purged(&self) -> u64 {
        self.purged.load(Ordering::Relaxed)
    }

    /// Ends the purger after the current batch and returns how many records it has deleted in all, counted as in
    /// [`purged`](Self::purged).
    pub async fn stop(self) -> u64 {
        drop(self.stop);
        // An error means that the task panicked; it has ended in either case.
        let _ended = self.task.await;
        self.purged.load(Ordering::Relaxed)
    }
}

impl PurgerBuilder {
    /// The time between two batches when nothing else has expired. One minute unless set.
    pub fn every(mut self, period: Duration) -> Self {
        self.every = period;
        self
    }

    /// The largest number of records in one batch. 50 unless set. Larger batches purge faster and make the slowest
    /// requests slower.
    pub fn batch(mut self, records: usize) -> Self {
        self.batch = records.max(1);
        self
    }

    /// How many records it looks at per period, for the metrics `idempotency_unknown_records` and
    /// `idempotency_oldest_unknown_age_seconds`. 10,000 unless set; at most
    /// [`Query::MAX_SCAN`](super::inspect::Query::MAX_SCAN); zero for none.
    ///
    /// The periods continue one another. A store with more records is looked at once in `records / sample` periods; until
    /// then the metrics show the last complete look, or what the current one has found if that is more. A store that does
    /// not list its records has neither metric.
    #[cfg(feature = "metrics")]
    pub fn sample(mut self, records: usize) -> Self {
        self.sample = records;
        self
    }

    /// Starts the purger on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use = "dropping the purger ends it"]
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
        // Spreads the first batches of replicas that start together.
        let mut rest = self.every.mul_f64(rand::random());
        let metrics = StoreMetrics::new(store.name());
        metrics.purged(0);
        #[cfg(feature = "metrics")]
        let mut sampler = sample::Sampler::new(self.sample, self.every);
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                () = sleep(rest) => {}
            }
            #[cfg(feature = "metrics")]
            sampler.sample(&store, &metrics).await;
            let began = Instant::now();
            // A server that stops answering must block neither the purger nor `stop`.
            let purge = timeout(BATCH_TIME_OUT, store.purge_expired(self.batch));
            let purged = purge.await.unwrap_or_else(|elapsed| {
                let late = StoreError::new(store.name(), StoreErrorKind::Unavailable);
                Err(late.with_source(elapsed))
            });
            let duration = began.elapsed();
            if let Ok(purged) = purged {
                total.fetch_add(purged as u64, Ordering::Relaxed);
                metrics.purged(purged);
            }
            rest = match purged {
                Ok(purged) if purged < self.batch => self.every,
                Ok(_) => (duration * REST_FACTOR).min(self.every),
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

    async fn complete_records(store: &MemoryStore, records: u8) {
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
    async fn all_expired_records_are_purged_in_batches() {
        let store = MemoryStore::new();
        let purger = Purger::builder()
            .every(Duration::from_secs(60))
            .batch(7)
            .start(store.clone());
        complete_records(&store, 100).await;
        sleep(Duration::from_secs(9)).await;
        assert_eq!(store.len(), 100, "nothing is deleted before it expires");
        sleep(Duration::from_secs(130)).await;
        assert_eq!(store.len(), 0);
        assert_eq!(purger.purged(), 100);
        assert_eq!(purger.stop().await, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_or_dropping_a_purger_ends_it() {
        let store = MemoryStore::new();
        assert_eq!(Purger::builder().start(store.clone()).stop().await, 0);
        drop(Purger::builder().start(store.clone()));
        complete_records(&store, 3).await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(store.len(), 3);
    }
}
