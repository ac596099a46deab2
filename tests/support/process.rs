//! Processes that share a store, and that crash.

use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::Router;
use idempotent_runtime::{
    Builder, Idempotency, StoreKey,
    store::{
        Acquisition, Claim, Held, Operation, Outcome, Record, StepLog, StepsRead, Store,
        StoreError, Token, Wake, Write,
    },
};
use tokio::task::yield_now;
use tower::ServiceExt;

use super::{Adapter, CountingHandler, TestRequest, poll_once};

/// A process with one engine, on a store that outlives it.
///
/// The engine renews the leases of its executions by itself, so a request that is never polled again is no crash. A
/// process has crashed when its engine reaches the store no more either.
pub(crate) struct Process {
    pub(crate) engine: Idempotency,
    alive: Arc<AtomicBool>,
}

impl Process {
    /// A process whose engine has these settings and works on this store.
    pub(crate) fn start(builder: Builder, store: impl Store) -> Self {
        let alive = Arc::new(AtomicBool::new(true));
        let store = MortalStore {
            store,
            alive: Arc::clone(&alive),
        };
        Self {
            engine: builder.store(store).build().unwrap(),
            alive,
        }
    }

    /// Crashes the process once it has begun to execute this request.
    pub(crate) async fn crash(
        self,
        app: &Router,
        request: &TestRequest,
        handler: &CountingHandler,
    ) {
        let before = handler.starts();
        self.crash_when(app, request, || handler.starts() > before)
            .await;
    }

    /// Crashes the process once this has happened to this request: its store never answers it again, and what runs the
    /// request is leaked, so that it is neither polled nor dropped.
    pub(crate) async fn crash_when(
        self,
        app: &Router,
        request: &TestRequest,
        happened: impl Fn() -> bool,
    ) {
        let mut request = Box::pin(app.clone().oneshot(request.request()));
        while !happened() {
            assert!(poll_once(request.as_mut()).await.is_none());
            yield_now().await;
        }
        self.cut_off();
        std::mem::forget(request);
    }

    /// From now on the process reaches its store no more.
    pub(crate) fn cut_off(&self) {
        self.alive.store(false, Ordering::SeqCst);
    }
}

/// Crashes a process with these settings once it has begun to execute this request.
pub(crate) async fn crash(
    adapter: Adapter,
    builder: Builder,
    store: impl Store,
    request: &TestRequest,
    handler: &CountingHandler,
) {
    let process = Process::start(builder, store);
    let app = adapter.app(&process.engine, handler);
    process.crash(&app, request, handler).await;
}

/// A store as a process sees it: after the process's end no operation is answered, and none reaches the records.
struct MortalStore<S> {
    store: S,
    alive: Arc<AtomicBool>,
}

impl<S: Store> MortalStore<S> {
    async fn call<T>(&self, operation: impl Future<Output = T>) -> T {
        if !self.alive.load(Ordering::SeqCst) {
            return pending().await;
        }
        let answer = operation.await;
        if !self.alive.load(Ordering::SeqCst) {
            return pending().await;
        }
        answer
    }
}

impl<S: Store> Store for MortalStore<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.call(self.store.acquire(claim)).await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.call(self.store.renew(held)).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.call(self.store.complete(held, outcome)).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.call(self.store.release(key, token)).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.call(self.store.abandon(key, token)).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.call(self.store.get(key)).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.call(self.store.purge_expired(limit)).await
    }

    fn attach(&self, wake: Wake) {
        self.store.attach(wake);
    }

    fn inspectable(&self) -> Option<&dyn idempotent_runtime::store::Inspectable> {
        self.store.inspectable()
    }

    fn step_log(&self) -> Option<&dyn StepLog> {
        self.store.step_log().map(|_| self as &dyn StepLog)
    }
}

impl<S: Store> StepLog for MortalStore<S> {
    fn read_steps<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, StepsRead> {
        let log = self.store.step_log().expect("the inner store's");
        Box::pin(self.call(log.read_steps(key, token)))
    }

    fn append_step<'a>(
        &'a self,
        key: &'a StoreKey,
        token: &'a Token,
        at: usize,
        bytes: &'a [u8],
    ) -> Operation<'a, Write> {
        let log = self.store.step_log().expect("the inner store's");
        Box::pin(self.call(log.append_step(key, token, at, bytes)))
    }
}
