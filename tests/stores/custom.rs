//! The conformance suite on the store of the custom-store example.

use std::time::Duration;

use idempotent_runtime::{
    Idempotency,
    store::{StoreErrorKind, conformance::Harness, inspect::Query},
};

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

#[tokio::test]
async fn a_store_that_lists_nothing_says_so() {
    let engine = Idempotency::builder().store(PlainStore::default());
    let engine = engine.build().unwrap();
    for error in [
        engine.find("abcd".parse().unwrap()).await.unwrap_err(),
        engine.list(&Query::new()).await.unwrap_err(),
        engine.stats(None, 1).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::NotInspectable);
        assert_eq!(
            error.to_string(),
            "the plain store does not list its records"
        );
    }
}
