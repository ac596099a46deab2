//! The object-safe form of [`Store`], so that the engine is compiled once and not once per store.

use std::{future::Future, pin::Pin};

use super::{
    Store,
    admin::Administrable,
    error::StoreError,
    inspect::Inspectable,
    outbox::OutboxStore,
    record::{Acquisition, Claim, Held, Outcome, Record, Write},
    steps::StepLog,
    token::Token,
    transaction::Transactions,
    wake::Wake,
};
use crate::scope::StoreKey;

/// A boxed future of an operation.
pub type Operation<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// [`Store`] with boxed futures; every store has it.
pub(crate) trait ErasedStore: Send + Sync {
    fn name(&self) -> &'static str;
    fn acquire<'a>(&'a self, claim: &'a Claim) -> Operation<'a, Acquisition>;
    fn renew<'a>(&'a self, held: &'a Held) -> Operation<'a, Write>;
    fn complete<'a>(&'a self, held: &'a Held, outcome: &'a Outcome) -> Operation<'a, Write>;
    fn release<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, Write>;
    fn abandon<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, Write>;
    fn get<'a>(&'a self, key: &'a StoreKey) -> Operation<'a, Option<Record>>;
    fn purge_expired(&self, limit: usize) -> Operation<'_, usize>;
    fn try_acquire(&self, claim: &Claim) -> Option<Result<Acquisition, StoreError>>;
    fn try_complete(&self, held: &Held, outcome: &Outcome) -> Option<Result<Write, StoreError>>;
    fn attach(&self, wake: Wake);
    fn inspectable(&self) -> Option<&dyn Inspectable>;
    fn administrable(&self) -> Option<&dyn Administrable>;
    fn transactions(&self) -> Option<&dyn Transactions>;
    fn step_log(&self) -> Option<&dyn StepLog>;
    fn outbox(&self) -> Option<&dyn OutboxStore>;
}

impl<S: Store> ErasedStore for S {
    fn name(&self) -> &'static str {
        Store::name(self)
    }

    fn acquire<'a>(&'a self, claim: &'a Claim) -> Operation<'a, Acquisition> {
        Box::pin(Store::acquire(self, claim))
    }

    fn renew<'a>(&'a self, held: &'a Held) -> Operation<'a, Write> {
        Box::pin(Store::renew(self, held))
    }

    fn complete<'a>(&'a self, held: &'a Held, outcome: &'a Outcome) -> Operation<'a, Write> {
        Box::pin(Store::complete(self, held, outcome))
    }

    fn release<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, Write> {
        Box::pin(Store::release(self, key, token))
    }

    fn abandon<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, Write> {
        Box::pin(Store::abandon(self, key, token))
    }

    fn get<'a>(&'a self, key: &'a StoreKey) -> Operation<'a, Option<Record>> {
        Box::pin(Store::get(self, key))
    }

    fn purge_expired(&self, limit: usize) -> Operation<'_, usize> {
        Box::pin(Store::purge_expired(self, limit))
    }

    fn try_acquire(&self, claim: &Claim) -> Option<Result<Acquisition, StoreError>> {
        Store::try_acquire(self, claim)
    }

    fn try_complete(&self, held: &Held, outcome: &Outcome) -> Option<Result<Write, StoreError>> {
        Store::try_complete(self, held, outcome)
    }

    fn attach(&self, wake: Wake) {
        Store::attach(self, wake);
    }

    fn inspectable(&self) -> Option<&dyn Inspectable> {
        Store::inspectable(self)
    }

    fn step_log(&self) -> Option<&dyn StepLog> {
        Store::step_log(self)
    }

    fn outbox(&self) -> Option<&dyn OutboxStore> {
        Store::outbox(self)
    }

    fn administrable(&self) -> Option<&dyn Administrable> {
        Store::administrable(self)
    }

    fn transactions(&self) -> Option<&dyn Transactions> {
        Store::transactions(self)
    }
}
