//! Where records live: the contract between the engine and its persistence.
//!
//! A [`Store`] keeps one record per [`StoreKey`] and offers seven operations on it. The engine takes every
//! decision that depends on policy; the store takes the one decision that must be atomic: *who owns
//! this key now*.
//!
//! # The contract
//!
//! 1. **Atomicity.** Each operation is one atomic step on one record. [`Store::acquire`] decides and returns
//!    everything the engine needs in that step; a look-up followed by an insert is not an acquire.
//! 2. **Fencing.** Every write after the acquire carries the [`Token`] it was acquired with. If the record
//!    now holds another token, or is not in flight, nothing changes and the answer is
//!    [`Fenced`](Write::Fenced). Tokens compare for equality only; they have no order. The attempt number
//!    has one: it rises by one with each new lease of a record.
//! 3. **Repetition.** An operation may arrive twice, because the reply to the first was lost. Acquire with the
//!    token that already holds the lease answers `Acquired` with the same attempt; complete with the token
//!    and outcome already stored answers [`Applied`](Write::Applied).
//! 4. **Clock.** One clock decides about leases and expiry: the store's. Callers pass durations, never
//!    points in time.
//! 5. **Durability.** A completion that was acknowledged is there until it expires, within the failures
//!    that the store's own documentation names.
//! 6. **Retention.** A record with a live lease is never purged, evicted or refused for lack of room. A
//!    completed record is never evicted before its expiry unless the operator chose so explicitly.
//! 7. **Crashes.** A crash before the acquire is applied leaves nothing; between acquire and complete it
//!    leaves a record in flight whose lease lapses; after the complete is applied it leaves the outcome.
//!    No crash leaves anything else.
//!
//! # The state machine
//!
//! ```text
//! acquire: absent or expired            -> in flight (attempt +1 if the row is still there)   Acquired
//!          in flight, same token        -> lease renewed                                       Acquired
//!          other fingerprint            -> unchanged                                           Mismatch
//!          in flight, lease live        -> unchanged                                           InFlight
//!          completed or tombstone       -> unchanged                                           Completed
//!          in flight, lease lapsed      -> take_over: new token, attempt +1                    Acquired
//!                                          otherwise: unchanged                                Unknown
//! renew, complete, release, abandon: with the current token only, else unchanged and Fenced
//! ```
//!
//! Five things that the table leaves open: the current token of a *completed* record can only repeat its
//! completion, every other write with it is `Fenced`. A repeated release finds nothing and answers `Missing`, which
//! says as much as `Applied`: the record is not there. An operation whose future was dropped, or whose caller gave up,
//! may be applied *later* than anything its caller does next; an acquire too, whose token nobody waits for then and
//! whose claim the caller must be ready to give back. A token belongs to one claim: repeating an acquire with
//! another fingerprint, or after the record expired, has no defined attempt. Where expired records vanish by
//! themselves, `purge_expired` may have nothing to delete and answer 0.
//!
//! A record expires `ttl` after its completion; in flight it expires `lease + ttl` after the last acquire
//! or renewal. Expired means: completed or tombstone past its expiry, or in flight past its expiry with a
//! lapsed lease. An expired record is treated as absent by `acquire` and [`Store::get`]. A late `complete`,
//! `renew` or `abandon` by the current token succeeds for as long as the row is there.

use std::future::Future;

use crate::scope::StoreKey;

#[cfg(feature = "cached")]
pub mod cached;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
pub(crate) mod erased;
mod error;
#[cfg(feature = "memory")]
pub mod memory;
pub mod purger;
mod record;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sql")]
pub mod sql;
mod token;
mod wake;

pub use connect::{AnyStore, ConnectError, connect, migrate};
pub use error::{StoreError, StoreErrorKind};
pub use record::{Acquisition, Claim, Held, Outcome, Record, RecordState, Write};
pub use token::{Token, TraceId};
pub use wake::Wake;

/// Persistence of records. See the [module documentation](self) for the contract.
///
/// Implementations write plain `async fn`s. The engine may drop none of these futures half-way except when
/// the process ends or its store time-out passes; a dropped operation happened, did not, or will yet: what was sent to a
/// server is carried out when it arrives.
pub trait Store: Send + Sync + 'static {
    /// A short lower-case name for logs, metrics and errors, such as `memory` or `redis`.
    fn name(&self) -> &'static str;

    /// Claims the key, or says who holds it. The only operation that can create a record.
    fn acquire(
        &self,
        claim: &Claim,
    ) -> impl Future<Output = Result<Acquisition, StoreError>> + Send;

    /// Extends the lease to `lease` from now, and the expiry to at least `lease + ttl` from now.
    fn renew(&self, held: &Held) -> impl Future<Output = Result<Write, StoreError>> + Send;

    /// Stores the outcome, to be replayed until `ttl` from now.
    ///
    /// Repeated with the same token and an equal outcome it answers [`Write::Applied`] and changes nothing.
    fn complete(
        &self,
        held: &Held,
        outcome: &Outcome,
    ) -> impl Future<Output = Result<Write, StoreError>> + Send;

    /// Removes the record: nothing was executed, the key may be used again. Repeated, it answers
    /// [`Write::Missing`], or [`Write::Fenced`] if the key has a new owner.
    fn release(
        &self,
        key: &StoreKey,
        token: &Token,
    ) -> impl Future<Output = Result<Write, StoreError>> + Send;

    /// Ends the lease now, keeping the record in flight: the outcome is unknown.
    fn abandon(
        &self,
        key: &StoreKey,
        token: &Token,
    ) -> impl Future<Output = Result<Write, StoreError>> + Send;

    /// Reads the record without changing it; `None` when it is absent or expired.
    fn get(
        &self,
        key: &StoreKey,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Deletes at most `limit` expired records and says how many it deleted.
    ///
    /// Work is proportional to what expired, not to what is stored. Fewer than the limit: nothing else is in reach now.
    /// After millions of deletions PostgreSQL and MySQL may find only minutes later what others had locked meanwhile.
    fn purge_expired(&self, limit: usize)
    -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Gives the store a way to wake waiters early. A store without push keeps nothing and returns.
    ///
    /// Waking is an optimisation: waiters poll, so a lost notification costs time, never correctness.
    fn attach(&self, wake: Wake);
}
