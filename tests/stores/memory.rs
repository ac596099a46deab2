//! The conformance suite on the memory store, awaited and asked for its answers at once.

use std::time::Duration;

use idempotent_runtime::{
    StoreKey,
    store::{
        Acquisition, Administrable, Claim, Held, Inspectable, Outcome, Record, Store, StoreError,
        Token, Wake, Write, conformance::Harness, memory::MemoryStore,
    },
};

pub(crate) struct MemoryHarness(MemoryStore);

impl Harness for MemoryHarness {
    type Store = MemoryStore;
    const PAUSED: bool = true;
    const INSPECTABLE: bool = true;
    const ADMINISTRABLE: bool = true;
    const STEPS: bool = true;

    async fn open() -> Self {
        Self(MemoryStore::new())
    }

    fn store(&self) -> &MemoryStore {
        &self.0
    }

    async fn second_handle(&self) -> MemoryStore {
        self.0.clone()
    }

    async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }
}

mod conformance {
    idempotent_runtime::store_conformance!(super::MemoryHarness);
}

/// The memory store by those of its operations that answer at once, as the engine calls it.
struct AtOnce(MemoryStore);

/// How an operation answered that never needs a future in this store.
fn at_once<T>(answer: Option<Result<T, StoreError>>) -> Result<T, StoreError> {
    answer.expect("memory answers at once")
}

impl Store for AtOnce {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        at_once(self.0.try_acquire(claim))
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.0.renew(held).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        at_once(self.0.try_complete(held, outcome))
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.0.release(key, token).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.0.abandon(key, token).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.0.get(key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.0.purge_expired(limit).await
    }

    fn attach(&self, wake: Wake) {
        self.0.attach(wake);
    }

    fn inspectable(&self) -> Option<&dyn Inspectable> {
        self.0.inspectable()
    }

    fn administrable(&self) -> Option<&dyn Administrable> {
        self.0.administrable()
    }
}

struct AtOnceHarness(AtOnce);

impl Harness for AtOnceHarness {
    type Store = AtOnce;
    const PAUSED: bool = true;
    const INSPECTABLE: bool = true;
    const ADMINISTRABLE: bool = true;

    async fn open() -> Self {
        Self(AtOnce(MemoryStore::new()))
    }

    fn store(&self) -> &AtOnce {
        &self.0
    }

    async fn second_handle(&self) -> AtOnce {
        AtOnce(self.0.0.clone())
    }

    async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }
}

mod conformance_at_once {
    idempotent_runtime::store_conformance!(super::AtOnceHarness);
}
