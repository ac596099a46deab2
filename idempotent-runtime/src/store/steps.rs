//! [`StepLog`]: the steps of an execution, kept with its record, beside [`Store`](super::Store).
//!
//! A handler that calls other services divides its work into [steps](crate::Execution::step). The engine appends what is
//! known of each to a log that belongs to the record, and the next attempt after a crash reads it.
//!
//! # The rules
//!
//! 1. **A log belongs to one record.** It is empty when the record is new, or was claimed again after it had expired. A
//!    take-over keeps it: the next attempt reads what the crashed one knew. It goes with its record, by release, purge and
//!    expiry, and with the completion: after that nothing reads it. No other operation changes it, and none is slower or
//!    fails because of it.
//! 2. **Both operations are fenced** like every write: only the current token of a record in flight reads and appends, also
//!    if its lease has lapsed; otherwise nothing changes.
//! 3. **An append names where it begins.** If that is the end of the log, the bytes are appended. If the log has the same
//!    bytes there already, the reply to a first append was lost, and the answer is [`Applied`](Write::Applied) without a
//!    change. Otherwise it is [`Fenced`](Write::Fenced), and nothing changes: what is in a log is never overwritten.
//! 4. **Each is one atomic step on one record**, and an append that was acknowledged is as durable as a completion.
//! 5. **The bytes are opaque.** The engine bounds them: a log has at most [`MAX_LOG`] bytes, and a step at most
//!    [`MAX_STEP`].
//!
//! A store offers the trait through [`Store::step_log`](super::Store::step_log); a wrapper passes the inner store's on. Its
//! conformance harness says so with `Harness::STEPS`. On a store without it a step is refused before it runs.

use bytes::Bytes;

use super::{erased::Operation, record::Write, token::Token};
use crate::scope::StoreKey;

/// The most bytes that the engine keeps of all steps of one record.
pub const MAX_LOG: usize = 1024 * 1024;

/// The most bytes that the engine keeps of the outcome of one step, as JSON.
pub const MAX_STEP: usize = 64 * 1024;

/// Keeps the steps of executions with their records. See the [module documentation](self) for the rules.
///
/// Object-safe: [`Store::step_log`](super::Store::step_log) gives it, also for a store chosen at run time
/// ([`AnyStore`](super::AnyStore)). A method is implemented as `Box::pin(async move { … })`.
///
/// # Cancellation
///
/// As with every operation of a store, one whose future was dropped has happened, has not, or will yet.
pub trait StepLog: Send + Sync {
    /// The whole log of the record that this token holds.
    ///
    /// # Errors
    ///
    /// As every operation of a store.
    fn read_steps<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, StepsRead>;

    /// Appends these bytes to the log of the record that this token holds. The log has `at` bytes before them.
    ///
    /// # Errors
    ///
    /// As every operation of a store.
    fn append_step<'a>(
        &'a self,
        key: &'a StoreKey,
        token: &'a Token,
        at: usize,
        bytes: &'a [u8],
    ) -> Operation<'a, Write>;
}

/// The answer of [`StepLog::read_steps`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepsRead {
    /// The token is current, and this is the log; empty if nothing was appended.
    Log(Bytes),
    /// The record belongs to another token, or is completed.
    Fenced,
    /// There is no record.
    Missing,
}

/// What rule 3 says about an append to this log: whether the bytes are to be appended (`Ok`), or else the answer.
#[cfg(any(feature = "memory", feature = "sql"))]
pub(crate) fn check_append(log: &[u8], at: usize, bytes: &[u8]) -> Result<(), Write> {
    if log.len() == at {
        return Ok(());
    }
    // `at` comes from the caller, and may be anything.
    let there = log.get(at..).and_then(|rest| rest.get(..bytes.len()));
    Err(if there == Some(bytes) {
        Write::Applied
    } else {
        Write::Fenced
    })
}
