//! The conformance suite on the memory store.

use std::time::Duration;

use idempotent_runtime::store::{conformance::Harness, memory::MemoryStore};

pub(crate) struct MemoryHarness(MemoryStore);

impl Harness for MemoryHarness {
    type Store = MemoryStore;
    const PAUSED: bool = true;

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
