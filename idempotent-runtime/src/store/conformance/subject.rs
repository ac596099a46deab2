//! The store under test with its type erased, so that each case is compiled once and not once per store.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use super::{Harness, toolbox::claim};
use crate::{
    scope::StoreKey,
    store::{admin::Administrable, erased::ErasedStore, inspect::Inspectable, record::Claim},
};

/// A boxed future.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A [`Harness`] of any type: the argument of a case. One value is one store, empty at first.
pub struct Subject {
    harness: Box<dyn ErasedHarness>,
    tick: Duration,
    must_be_inspectable: bool,
    must_be_administrable: bool,
    steps: bool,
    new_claim: fn(StoreKey) -> Claim,
}

impl Subject {
    /// Opens an empty store.
    pub async fn open<H: Harness>() -> Self {
        Self {
            harness: Box::new(H::open().await),
            tick: H::TICK,
            must_be_inspectable: H::INSPECTABLE,
            must_be_administrable: H::ADMINISTRABLE,
            steps: H::STEPS,
            new_claim: claim::<H>,
        }
    }

    pub(super) fn store(&self) -> &dyn ErasedStore {
        self.harness.store()
    }

    /// The store's lists, if it has any.
    pub(super) fn inspectable(&self) -> Option<&dyn Inspectable> {
        let inspectable = self.store().inspectable();
        assert!(
            inspectable.is_some() || !self.must_be_inspectable,
            "the harness says that the store is inspectable, and `Store::inspectable` returns none"
        );
        inspectable
    }

    /// What operators do to the store, if they can do anything.
    pub(super) fn administrable(&self) -> Option<&dyn Administrable> {
        let administrable = self.store().administrable();
        assert!(
            administrable.is_some() || !self.must_be_administrable,
            "the harness says that the store is administrable, and `Store::administrable` returns none"
        );
        administrable
    }

    pub(super) async fn second_handle(&self) -> Box<dyn ErasedStore> {
        self.harness.second_handle().await
    }

    pub(super) async fn advance(&self, by: Duration) {
        self.harness.advance(by).await;
    }

    pub(super) async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        self.harness.corrupt(key, stored).await
    }

    pub(super) async fn losing_handle(&self, key: &StoreKey) -> Option<Box<dyn ErasedStore>> {
        self.harness.losing_handle(key).await
    }

    /// Whether the harness says that the store keeps steps.
    pub(super) fn keeps_steps(&self) -> bool {
        self.steps
    }

    pub(super) fn ticks(&self, n: u32) -> Duration {
        self.tick * n
    }

    /// A [`claim`] whose durations are in the harness's ticks.
    pub(super) fn claim(&self, key: StoreKey) -> Claim {
        (self.new_claim)(key)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subject")
            .field(&self.store().name())
            .finish()
    }
}

/// The object-safe form of [`Harness`].
trait ErasedHarness: Send + Sync {
    fn store(&self) -> &dyn ErasedStore;
    fn second_handle(&self) -> Boxed<'_, Box<dyn ErasedStore>>;
    fn advance(&self, by: Duration) -> Boxed<'_, ()>;
    fn corrupt<'a>(&'a self, key: &'a StoreKey, stored: &'a [u8]) -> Boxed<'a, bool>;
    fn losing_handle<'a>(&'a self, key: &'a StoreKey) -> Boxed<'a, Option<Box<dyn ErasedStore>>>;
}

impl<H: Harness> ErasedHarness for H {
    fn store(&self) -> &dyn ErasedStore {
        Harness::store(self)
    }

    fn second_handle(&self) -> Boxed<'_, Box<dyn ErasedStore>> {
        Box::pin(async { Box::new(Harness::second_handle(self).await) as Box<dyn ErasedStore> })
    }

    fn advance(&self, by: Duration) -> Boxed<'_, ()> {
        Box::pin(Harness::advance(self, by))
    }

    fn corrupt<'a>(&'a self, key: &'a StoreKey, stored: &'a [u8]) -> Boxed<'a, bool> {
        Box::pin(Harness::corrupt(self, key, stored))
    }

    fn losing_handle<'a>(&'a self, key: &'a StoreKey) -> Boxed<'a, Option<Box<dyn ErasedStore>>> {
        Box::pin(async {
            let losing = Harness::losing_handle(self, key).await?;
            Some(Box::new(losing) as Box<dyn ErasedStore>)
        })
    }
}
