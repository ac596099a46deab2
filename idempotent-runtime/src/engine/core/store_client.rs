//! The store's operations as the engine calls them: limited in time, measured, repeated where that is safe.

use std::{future::poll_fn, task::Poll, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    backoff::jittered,
    observe,
    scope::StoreKey,
    store::{
        Acquisition, Claim, Held, Outcome, Record, StoreError, StoreErrorKind, Token, Write,
        erased::{ErasedStore, Operation},
    },
};

/// The store, under the engine's store time-out.
pub(crate) struct StoreClient {
    store: Box<dyn ErasedStore>,
    /// How long one request waits for one operation, repetitions included.
    store_timeout: Duration,
}

/// An acquire that was not acknowledged.
#[derive(Debug)]
pub(crate) struct AcquireError {
    pub(crate) error: StoreError,
    /// Whether the key may be ours all the same: an earlier attempt may have been applied and its reply lost, whatever
    /// the store answered to the next one. A store that had room for the first may be full at the second.
    pub(crate) in_doubt: bool,
}

impl StoreClient {
    pub(crate) fn new(store: Box<dyn ErasedStore>, store_timeout: Duration) -> Self {
        Self {
            store,
            store_timeout,
        }
    }

    pub(crate) fn store(&self) -> &dyn ErasedStore {
        &*self.store
    }

    pub(crate) fn store_timeout(&self) -> Duration {
        self.store_timeout
    }

    /// Claims the key, from `sent` on. Repeated once with the same token when the reply was lost, within the same
    /// time-out.
    pub(crate) async fn acquire(
        &self,
        claim: &Claim,
        sent: Instant,
    ) -> Result<Acquisition, AcquireError> {
        // Half of the time, so that some is left for the repetition.
        let first = self
            .limited("acquire", self.store_timeout / 2, self.store.acquire(claim))
            .await;
        match first {
            Err(error) if error.is_transient() => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "acquire is repeated"
                );
                sleep(jittered(self.store_timeout / 50)).await;
                let left = self.store_timeout.saturating_sub(sent.elapsed());
                let second = self.limited("acquire", left, self.store.acquire(claim));
                second.await.map_err(|error| AcquireError {
                    error,
                    in_doubt: true,
                })
            }
            other => other.map_err(|error| AcquireError {
                error,
                in_doubt: false,
            }),
        }
    }

    pub(crate) async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.operation("renew", self.store.renew(held)).await
    }

    pub(crate) async fn complete(
        &self,
        held: &Held,
        outcome: &Outcome,
    ) -> Result<Write, StoreError> {
        self.operation("complete", self.store.complete(held, outcome))
            .await
    }

    pub(crate) async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.operation("release", self.store.release(key, token))
            .await
    }

    pub(crate) async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.operation("abandon", self.store.abandon(key, token))
            .await
    }

    pub(crate) async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.operation("get", self.store.get(key)).await
    }

    pub(crate) async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.operation("purge_expired", self.store.purge_expired(limit))
            .await
    }

    /// An operation that may take the whole store time-out.
    fn operation<'a, T: 'a>(
        &'a self,
        name: &'static str,
        operation: Operation<'a, T>,
    ) -> impl Future<Output = Result<T, StoreError>> + 'a {
        self.limited(name, self.store_timeout, operation)
    }

    /// Ends an operation that takes too long. One that is ready at once, as in memory, starts no timer.
    async fn limited<T>(
        &self,
        name: &'static str,
        limit: Duration,
        mut operation: Operation<'_, T>,
    ) -> Result<T, StoreError> {
        let since = observe::Stopwatch::start();
        let result = match poll_fn(|context| Poll::Ready(operation.as_mut().poll(context))).await {
            Poll::Ready(result) => result,
            // Boxed, as is everything that a store in memory does not need: a future has room for its rarest step, and
            // that room is allocated and moved with each request.
            Poll::Pending => Box::pin(timeout(limit, operation))
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

impl std::fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreClient")
            .field("store", &self.store.name())
            .field("store_timeout", &self.store_timeout)
            .finish()
    }
}
