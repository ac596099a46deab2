//! The conformance suite on the store of the custom-store example.

use std::time::Duration;

use idempotent_runtime::store::conformance::Harness;

use crate::custom_store::PlainStore;

pub(crate) struct PlainHarness(PlainStore);

impl Harness for PlainHarness {
    type Store = PlainStore;
    const PAUSED: bool = true;

    async fn open() -> Self {
        Self(PlainStore::default())
    }

    fn store(&self) -> &PlainStore {
        &self.0
    }

    async fn second_handle(&self) -> PlainStore {
        self.0.clone()
    }

    async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }
}

mod conformance {
    idempotent_runtime::store_conformance!(super::PlainHarness);
}
