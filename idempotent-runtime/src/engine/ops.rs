//! The store's verbs as the engine calls them: bounded in time, measured, repeated where that is safe.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    observe,
    scope::StoreKey,
    store::{
        Acquisition, Claim, Held, Outcome, Record, StoreError, StoreErrorKind, Token, Write,
        erased::ErasedStore,
    },
};

/// The store, with the engine's patience.
pub(crate) struct Ops {
    store: Box<dyn ErasedStore>,
    /// How long one request waits for one verb, repetitions included.
    patience: Duration,
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

    /// Claims the key. Repeated once with the same token when the reply was lost, within the same patience.
    pub(crate) async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        let started = Instant::now();
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
                let left = self.patience.saturating_sub(started.elapsed());
                self.bounded("acquire", left, self.store.acquire(claim))
                    .await
            }
            other => other,
        }
    }

    pub(crate) async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.bounded("renew", self.patience, self.store.renew(held))
            .await
    }

    pub(crate) async fn complete(
        &self,
        held: &Held,
        outcome: &Outcome,
    ) -> Result<Write, StoreError> {
        self.bounded(
            "complete",
            self.patience,
            self.store.complete(held, outcome),
        )
        .await
    }

    pub(crate) async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.bounded("release", self.patience, self.store.release(key, token))
            .await
    }

    pub(crate) async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.bounded("abandon", self.patience, self.store.abandon(key, token))
            .await
    }

    pub(crate) async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.bounded("get", self.patience, self.store.get(key))
            .await
    }

    pub(crate) async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.bounded(
            "purge_expired",
            self.patience,
            self.store.purge_expired(limit),
        )
        .await
    }

    /// Ends a verb that takes too long. A verb that is ready at once, as in memory, starts no timer.
    async fn bounded<T>(
        &self,
        verb: &'static str,
        patience: Duration,
        run: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let clock = observe::StoreClock::start();
        let mut run = pin!(run);
        let result = match poll_fn(|context| Poll::Ready(run.as_mut().poll(context))).await {
            Poll::Ready(result) => result,
            Poll::Pending => timeout(patience, run).await.unwrap_or_else(|elapsed| {
                let error = StoreError::new(self.store.name(), StoreErrorKind::Unavailable);
                Err(error.with_source(elapsed))
            }),
        };
        clock.stop(self.store.name(), verb, result.is_ok());
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
