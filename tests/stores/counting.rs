//! A store that counts what it is asked.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use idempotent_runtime::{
    StoreKey,
    store::{
        Acquisition, AnyStore, Claim, Held, Inspectable, Outcome, Record, Store, StoreError, Token,
        Wake, Write,
    },
};

/// Counts the operations of the inner store. Clones share the count.
#[derive(Clone)]
pub(crate) struct Counting {
    store: AnyStore,
    operations: Arc<AtomicU64>,
}

impl Counting {
    pub(crate) fn new(store: impl Store) -> Self {
        Self {
            store: AnyStore::new(store),
            operations: Arc::default(),
        }
    }

    /// How many operations there were so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    /// How many operations there were since the last call.
    pub(crate) fn take(&self) -> u64 {
        self.operations.swap(0, Ordering::SeqCst)
    }

    fn counted(&self) -> &AnyStore {
        self.operations.fetch_add(1, Ordering::SeqCst);
        &self.store
    }
}

impl Store for Counting {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.counted().acquire(claim).await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.counted().renew(held).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.counted().complete(held, outcome).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.counted().release(key, token).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.counted().abandon(key, token).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.counted().get(key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.counted().purge_expired(limit).await
    }

    fn attach(&self, wake: Wake) {
        self.store.attach(wake);
    }

    fn inspectable(&self) -> Option<&dyn Inspectable> {
        self.store.inspectable()
    }
}
