//! The store's verbs as the engine calls them: bounded in time, measured, repeated where that is safe.

use std::{future::poll_fn, task::Poll, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    observe,
    scope::StoreKey,
    store::{
        Acquisition, Claim, Held, Outcome, Record, StoreError, StoreErrorKind, Token, Write,
        erased::{ErasedStore, Operation},
    },
};

/// The store, with the engine's patience.
pub(crate) struct Ops {
    store: Box<dyn ErasedStore>,
    /// How long one request waits for one verb, repetitions included.
    patience: Duration,
}

/// An acquire that was not acknowledged.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    pub(crate) error: StoreError,
    /// Whether the key may be ours all the same: an attempt may have been applied and its reply lost, whatever the
    /// store said of the next one. A store that had room for the first may be full at the second.
    pub(crate) doubtful: bool,
}

impl Ops {
    pub(crate) fn new(store: Box<dyn ErasedStore>, patience: Duration) -> Self {
        Self { store, patience }
    }

    pub(crate) fn store(&self) -> &dyn ErasedStore {
        &*self.store
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Claims the key, from `sent` on. Repeated once with the same token when the reply was lost, within the same
    /// patience.
    pub(crate) async fn acquire(
        &self,
        claim: &Claim,
        sent: Instant,
    ) -> Result<Acquisition, Unclaimed> {
        // Half the patience, so that there is time for the repetition.
        let first = self
            .bounded("acquire", self.patience / 2, self.store.acquire(claim))
            .await;
        match first {
            Err(error) if error.is_transient() => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "acquire is repeated"
                );
                sleep(jittered(self.patience / 50)).await;
                let left = self.patience.saturating_sub(sent.elapsed());
                let second = self.bounded("acquire", left, self.store.acquire(claim));
                second.await.map_err(|error| Unclaimed {
                    error,
                    doubtful: true,
                })
            }
            other => other.map_err(|error| Unclaimed {
                error,
                doubtful: false,
            }),
        }
    }

    pub(crate) async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.verb("renew", self.store.renew(held)).await
    }

    pub(crate) async fn complete(
        &self,
        held: &Held,
        outcome: &Outcome,
    ) -> Result<Write, StoreError> {
        self.verb("complete", self.store.complete(held, outcome))
            .await
    }

    pub(crate) async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.verb("release", self.store.release(key, token)).await
    }

    pub(crate) async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.verb("abandon", self.store.abandon(key, token)).await
    }

    pub(crate) async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.verb("get", self.store.get(key)).await
    }

    pub(crate) async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.verb("purge_expired", self.store.purge_expired(limit))
            .await
    }

    /// A verb that is given all the patience there is.
    fn verb<'a, T: 'a>(
        &'a self,
        name: &'static str,
        verb: Operation<'a, T>,
    ) -> impl Future<Output = Result<T, StoreError>> + 'a {
        self.bounded(name, self.patience, verb)
    }

    /// Ends a verb that takes too long. A verb that is ready at once, as in memory, starts no timer.
    async fn bounded<T>(
        &self,
        name: &'static str,
        patience: Duration,
        mut verb: Operation<'_, T>,
    ) -> Result<T, StoreError> {
        let since = observe::Stopwatch::start();
        let result = match poll_fn(|context| Poll::Ready(verb.as_mut().poll(context))).await {
            Poll::Ready(result) => result,
            // Boxed, as everything that is not on the way of a store in memory: the room a future has for its
            // rarest step is moved and allocated with each request.
            Poll::Pending => Box::pin(timeout(patience, verb))
                .await
                .unwrap_or_else(|elapsed| {
                    let error = StoreError::new(self.store.name(), StoreErrorKind::Unavailable);
                    Err(error.with_source(elapsed))
                }),
        };
        observe::store_operation(self.store.name(), name, result.is_ok(), since);
        result
    }
}

/// Between half and one and a half times the duration, so that retries of many do not fall together.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.5 + rand::random::<f64>())
}

impl std::fmt::Debug for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ops")
            .field("store", &self.store.name())
            .field("patience", &self.patience)
            .finish()
    }
}
