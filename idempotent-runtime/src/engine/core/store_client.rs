//! The store's operations as the engine calls them: limited in time, measured, repeated where that is safe.

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::runtime::TaskRuntime;
use crate::{
    backoff::{Backoff, jittered},
    catch_unwind::{Panicked, catch_unwind, catching, drop_catching},
    observe::{Stopwatch, StoreMetrics, StoreOperation},
    scope::StoreKey,
    store::{
        Acquisition, Claim, Held, Inspectable, OutboxStore, Outcome, Record, StepLog, StepsRead,
        StoreError, StoreErrorKind, Token, Write,
        admin::Administrable,
        erased::{ErasedStore, Operation},
        inspect::{Cursor, Page, Query, Stats},
    },
};

/// The store, under the engine's store time-out.
pub(crate) struct StoreClient {
    store: Box<dyn ErasedStore>,
    metrics: StoreMetrics,
    /// Where it runs.
    runtime: TaskRuntime,
    /// How long one request waits for one operation, repetitions included.
    store_timeout: Duration,
}

/// The lists of a store, each page under the engine's time-out.
pub(crate) struct Lists<'s> {
    client: &'s StoreClient,
    inner: &'s dyn Inspectable,
}

/// What an acquire brought, repetition included.
#[derive(Debug)]
pub(crate) struct AcquireReply {
    pub(crate) result: Result<Acquisition, StoreError>,
    /// When the acquire that was answered was sent.
    pub(crate) sent: Instant,
    /// Whether an acquire of this call was sent and not answered, so that it may be applied at any time: a later answer
    /// to the repetition does not change that.
    pub(crate) unanswered: bool,
}

impl StoreClient {
    pub(crate) fn new(
        store: Box<dyn ErasedStore>,
        runtime: TaskRuntime,
        store_timeout: Duration,
    ) -> Self {
        let metrics = StoreMetrics::new(store.name());
        Self {
            store,
            metrics,
            runtime,
            store_timeout,
        }
    }

    pub(crate) fn store(&self) -> &dyn ErasedStore {
        &*self.store
    }

    pub(crate) fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    pub(crate) fn store_timeout(&self) -> Duration {
        self.store_timeout
    }

    /// Claims the key. Repeated once with the same token when no answer came, within the same time-out, unless `follow`
    /// says that this process executes the key by now.
    pub(crate) async fn acquire(&self, claim: &Claim, follow: impl Fn() -> bool) -> AcquireReply {
        let sent = Instant::now();
        // Half of the time, so that some is left for the repetition.
        let first = self.limited(StoreOperation::Acquire, self.store_timeout / 2, || {
            self.store.acquire(claim)
        });
        match first.await {
            Err(error) if error.is_transient() => {
                // Boxed: rare, and larger than everything else here.
                Box::pin(self.acquire_again(claim, sent, error, follow)).await
            }
            result => AcquireReply {
                result,
                sent,
                unanswered: false,
            },
        }
    }

    /// The repetition of an acquire that was sent at `first_sent` and failed.
    pub(crate) async fn acquire_again(
        &self,
        claim: &Claim,
        first_sent: Instant,
        error: StoreError,
        follow: impl Fn() -> bool,
    ) -> AcquireReply {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "acquire is repeated"
        );
        sleep(jittered(self.store_timeout / 50)).await;
        if follow() {
            return AcquireReply {
                result: Err(error),
                sent: first_sent,
                unanswered: true,
            };
        }
        let left = self.store_timeout.saturating_sub(first_sent.elapsed());
        let sent = Instant::now();
        let result = self
            .limited(StoreOperation::Acquire, left, || self.store.acquire(claim))
            .await;
        AcquireReply {
            result,
            sent,
            unanswered: true,
        }
    }

    /// Claims the key, if the store can answer at once.
    pub(crate) fn try_acquire(&self, claim: &Claim) -> Option<Result<Acquisition, StoreError>> {
        self.at_once(StoreOperation::Acquire, || self.store.try_acquire(claim))
    }

    /// Completes the record, if the store can answer at once.
    pub(crate) fn try_complete(
        &self,
        held: &Held,
        outcome: &Outcome,
    ) -> Option<Result<Write, StoreError>> {
        let name = StoreOperation::Complete;
        let written = self.at_once(name, || self.store.try_complete(held, outcome))?;
        Some(self.counted(name, written))
    }

    /// An operation that needs no future. A panic counts as no answer.
    fn at_once<T>(
        &self,
        name: StoreOperation,
        operation: impl FnOnce() -> Option<Result<T, StoreError>>,
    ) -> Option<Result<T, StoreError>> {
        let since = Stopwatch::start();
        let _entered = self.runtime.enter();
        let result = catch_unwind(operation)
            .unwrap_or_else(|panicked| Some(Err(self.panicked(panicked))))?;
        self.metrics.operation(name, kind(&result), since);
        Some(result)
    }

    pub(crate) async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.write(StoreOperation::Renew, || self.store.renew(held))
            .await
    }

    pub(crate) async fn complete(
        &self,
        held: &Held,
        outcome: &Outcome,
    ) -> Result<Write, StoreError> {
        self.write(StoreOperation::Complete, || {
            self.store.complete(held, outcome)
        })
        .await
    }

    pub(crate) async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.write(StoreOperation::Release, || self.store.release(key, token))
            .await
    }

    pub(crate) async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.write(StoreOperation::Abandon, || self.store.abandon(key, token))
            .await
    }

    pub(crate) async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.operation(StoreOperation::Get, || self.store.get(key))
            .await
    }

    /// Runs this in the background, where the engine's tasks run.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Whether the store keeps the steps of executions.
    pub(crate) fn keeps_steps(&self) -> bool {
        self.store.step_log().is_some()
    }

    /// Whether the store cannot write while the handler has a transaction.
    pub(crate) fn locks_in_transactions(&self) -> bool {
        let transactions = self.store.transactions();
        transactions.is_some_and(|transactions| !transactions.allows_renewals())
    }

    pub(crate) async fn read_steps(&self, held: &Held) -> Result<StepsRead, StoreError> {
        self.step_operation(StoreOperation::ReadSteps, |log| {
            log.read_steps(&held.key, &held.token)
        })
        .await
    }

    pub(crate) async fn append_step(
        &self,
        held: &Held,
        at: usize,
        bytes: &[u8],
    ) -> Result<Write, StoreError> {
        let written = self
            .step_operation(StoreOperation::AppendStep, |log| {
                log.append_step(&held.key, &held.token, at, bytes)
            })
            .await;
        self.counted(StoreOperation::AppendStep, written)
    }

    /// An operation on the log of steps, repeated within three store time-outs, as the last write of an execution is: it may
    /// be repeated, and what it is about may have happened already.
    async fn step_operation<'a, T: 'a>(
        &'a self,
        name: StoreOperation,
        operation: impl Fn(&'a dyn StepLog) -> Operation<'a, T>,
    ) -> Result<T, StoreError> {
        let Some(log) = self.store.step_log() else {
            return Err(StoreError::new(self.store.name(), StoreErrorKind::Refused));
        };
        let deadline = Instant::now() + self.store_timeout * 3;
        let mut backoff = Backoff::new(self.store_timeout / 50, self.store_timeout / 2);
        loop {
            match self.operation(name, || operation(log)).await {
                Err(error)
                    if error.is_transient() && Instant::now() + backoff.peek() < deadline =>
                {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "{} is repeated",
                        name.as_str()
                    );
                    sleep(backoff.pause()).await;
                }
                result => return result,
            }
        }
    }

    pub(crate) async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        let purge = || self.store.purge_expired(limit);
        let purged = self.operation(StoreOperation::PurgeExpired, purge).await;
        self.metrics.purged(*purged.as_ref().unwrap_or(&0));
        purged
    }

    /// An operation on the store's outbox; `None` if the store has none.
    pub(crate) async fn outbox<'a, T: 'a>(
        &'a self,
        name: StoreOperation,
        operation: impl FnOnce(&'a dyn OutboxStore) -> Operation<'a, T>,
    ) -> Option<Result<T, StoreError>> {
        let outbox = self.store.outbox()?;
        Some(self.operation(name, || operation(outbox)).await)
    }

    /// The store's lists.
    pub(crate) fn lists(&self) -> Result<Lists<'_>, StoreError> {
        let inner = self.store.inspectable();
        let none = || StoreError::new(self.store.name(), StoreErrorKind::NotInspectable);
        let inner = inner.ok_or_else(none)?;
        Ok(Lists {
            client: self,
            inner,
        })
    }

    /// An operation that the store refuses to who has lost the lease.
    async fn write<'a>(
        &'a self,
        name: StoreOperation,
        operation: impl FnOnce() -> Operation<'a, Write>,
    ) -> Result<Write, StoreError> {
        let written = self.operation(name, operation).await;
        self.counted(name, written)
    }

    fn counted(
        &self,
        name: StoreOperation,
        written: Result<Write, StoreError>,
    ) -> Result<Write, StoreError> {
        written.inspect(|write| self.metrics.wrote(name, *write))
    }

    /// An operation that may take the whole store time-out.
    fn operation<'a, T: 'a>(
        &'a self,
        name: StoreOperation,
        operation: impl FnOnce() -> Operation<'a, T>,
    ) -> impl Future<Output = Result<T, StoreError>> + 'a {
        self.limited(name, self.store_timeout, operation)
    }

    /// What an operator does, under the store's time-out; `None` if the store has no such side.
    pub(crate) async fn administer<'a, T: 'a>(
        &'a self,
        name: StoreOperation,
        operation: impl FnOnce(&'a dyn Administrable) -> Operation<'a, T>,
    ) -> Option<Result<T, StoreError>> {
        let store = self.store.administrable()?;
        Some(
            self.limited(name, self.store_timeout, || operation(store))
                .await,
        )
    }

    /// Ends an operation that takes too long, or panics: the store may be the user's own. One that is ready at once, as in
    /// memory, starts no timer.
    fn limited<'a, T: 'a>(
        &'a self,
        name: StoreOperation,
        limit: Duration,
        operation: impl FnOnce() -> Operation<'a, T>,
    ) -> impl Future<Output = Result<T, StoreError>> + 'a {
        let since = Stopwatch::start();
        let called = catch_unwind(|| self.runtime.within(operation));
        async move {
            let result = match called {
                Ok(operation) => self.answer(operation, limit).await,
                Err(panicked) => Err(self.panicked(panicked)),
            };
            self.metrics.operation(name, kind(&result), since);
            result
        }
    }

    async fn answer<T>(
        &self,
        mut operation: Operation<'_, T>,
        limit: Duration,
    ) -> Result<T, StoreError> {
        let polled =
            poll_fn(|context| Poll::Ready(catch_unwind(|| operation.as_mut().poll(context))));
        match polled.await {
            Ok(Poll::Ready(result)) => {
                drop_catching(operation);
                result
            }
            Err(panicked) => {
                drop_catching(operation);
                Err(self.panicked(panicked))
            }
            // Boxed, as is everything that a store in memory does not need: a future has room for its rarest step, and
            // that room is allocated and moved with each request.
            Ok(Poll::Pending) => match Box::pin(timeout(limit, catching(operation))).await {
                Ok(Ok(result)) => result,
                Ok(Err(panicked)) => Err(self.panicked(panicked)),
                Err(elapsed) => {
                    let error = StoreError::new(self.store.name(), StoreErrorKind::Unavailable);
                    Err(error.with_source(elapsed))
                }
            },
        }
    }

    /// What a store did that panicked is unknown, as if it had not answered.
    fn panicked(&self, _: Panicked) -> StoreError {
        let error = StoreError::new(self.store.name(), StoreErrorKind::Unavailable);
        error.with_source("the store panicked")
    }
}

/// How it failed, if it did.
fn kind<T>(result: &Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.as_ref().err().map(StoreError::kind)
}

impl Inspectable for Lists<'_> {
    fn list<'a>(&'a self, query: &'a Query) -> Operation<'a, Page> {
        let list = || self.inner.list(query);
        Box::pin(self.client.operation(StoreOperation::List, list))
    }

    fn stats<'a>(&'a self, cursor: Option<&'a Cursor>, max_scan: usize) -> Operation<'a, Stats> {
        let stats = || self.inner.stats(cursor, max_scan);
        Box::pin(self.client.operation(StoreOperation::Stats, stats))
    }
}

impl std::fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreClient")
            .field("store", &self.store.name())
            .field("runtime", &self.runtime)
            .field("store_timeout", &self.store_timeout)
            .finish_non_exhaustive()
    }
}
