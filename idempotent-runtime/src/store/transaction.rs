//! [`Transactions`]: a store whose records can be completed in the transaction that has the effect.
//!
//! A store offers the trait through [`Store::transactions`](super::Store::transactions). The engine then
//!
//! 1. claims the key in a statement of its own, in the mode [`Transactional`](super::ClaimMode::Transactional);
//! 2. begins a transaction, in which the handler writes;
//! 3. completes the record in it by [`OpenTransaction::commit`], or rolls it back.
//!
//! # The contract
//!
//! - **Both or neither.** What the transaction wrote and the completed record are committed together. COMMIT is sent only
//!   after the completion changed one row, fenced by the token.
//! - **Only in the transaction that was begun.** The completion shows that it still runs there. A handler may have committed
//!   by itself, on purpose or by a statement that commits implicitly: then the answer is [`NotOurs`](CommitResult::NotOurs).
//! - **Doubt is decided by a write.** Whether a COMMIT without an answer was applied is decided by releasing or abandoning the
//!   record if it is still in flight under the token ([`InDoubt::resolve`]): that write waits for the row, which the COMMIT
//!   has locked until it is applied or lost; never by a read alone.
//! - **Sessions of their own.** However long handlers take, acquire and renew find a connection.

use std::{any::Any, fmt, future::Future, pin::Pin, time::Duration};

use super::{
    erased::Operation,
    record::{Held, Outcome},
};
use crate::boxes::BoxError;

/// Begins transactions that can complete a record. See the [module documentation](self).
pub trait Transactions: Send + Sync {
    /// Begins a transaction. Its session ends by itself when it is idle for longer than `lease` between two statements,
    /// where the database can do so.
    ///
    /// # Errors
    ///
    /// As every operation; nothing has begun then.
    fn begin(&self, lease: Duration) -> Operation<'_, Box<dyn OpenTransaction>>;

    /// The database: `postgres`, `mysql` or `sqlite`.
    fn database(&self) -> &'static str;

    /// Whether leases can be renewed while a transaction is open. In SQLite it keeps all other writers out.
    fn allows_renewals(&self) -> bool;
}

/// A transaction that was begun. Dropped, it rolls back.
pub trait OpenTransaction: Send + fmt::Debug {
    /// The transaction as what the argument of a handler takes, which knows its type.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;

    /// Completes the record in the transaction, and commits.
    fn commit(self: Box<Self>, held: Held, outcome: Outcome) -> Ending<CommitResult>;

    /// Rolls back. What is not acknowledged is rolled back when the session ends: COMMIT was never sent.
    fn roll_back(self: Box<Self>) -> Ending<()>;

    /// Rolls back before the key is released, if it still is the transaction that was begun.
    ///
    /// # Errors
    ///
    /// What was found instead, where the database can tell: what the handler wrote may be committed.
    fn roll_back_to_release(self: Box<Self>) -> Ending<Result<(), &'static str>>;
}

/// A transaction on its way to its end.
pub type Ending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How a transaction ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommitResult {
    /// Record and rows are committed.
    Committed,
    /// Rolled back: the record belongs to another token, or is completed.
    Fenced,
    /// Rolled back: there is no record any more.
    Missing,
    /// Rolled back, because of this error.
    RolledBack {
        /// The error of the completion or of COMMIT.
        source: BoxError,
        /// Whether the same transaction may succeed when it is executed again, as after a deadlock.
        retry: bool,
    },
    /// The record was not completed, because it is not the transaction any more that was begun. What the handler wrote may
    /// be committed.
    NotOurs {
        /// What was found.
        found: &'static str,
    },
    /// Nothing was sent: the database does not take so large an outcome.
    TooLarge(Box<dyn OpenTransaction>),
    /// COMMIT was sent and not answered.
    InDoubt(Box<dyn InDoubt>),
}

/// A COMMIT that was sent and not answered.
pub trait InDoubt: Send + fmt::Debug {
    /// Finds out what became of it, in a way that decides it: what is not committed by then never is. If nothing was
    /// committed, the record is given up as `by` says.
    ///
    /// # Errors
    ///
    /// As every operation; then it is as much in doubt as before.
    fn resolve(&mut self, by: GiveUp) -> Operation<'_, Resolved>;
}

/// How a record is given up whose transaction was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// It is deleted: the key is free.
    Release,
    /// Its lease ends now. The next attempt takes it over, with the steps of this one.
    Abandon,
}

/// What became of a COMMIT that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Record and rows are committed.
    Committed,
    /// Nothing is committed, and the record was given up.
    RolledBack,
    /// The record belongs to another token: nothing was committed.
    Fenced,
    /// There is no record, so nobody knows.
    Missing,
}
