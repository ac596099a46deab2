//! Persistence of records: the contract between the engine and a store.
//!
//! A [`Store`] keeps one record per [`StoreKey`] and offers seven operations on it. The engine takes every
//! decision that depends on policy. The store takes the one decision that must be atomic: *who owns this key
//! now*.
//!
//! # The contract
//!
//! 1. **Atomicity.** Each operation is one atomic step on one record. [`Store::acquire`] decides and returns
//!    everything the engine needs in that step; a look-up followed by an insert is not an acquire.
//! 2. **Fencing.** Every write after the acquire carries the [`Token`] it was acquired with. If the record now
//!    holds another token, or is not in flight, nothing changes and the answer is [`Fenced`](Write::Fenced).
//!    Tokens compare for equality only; they have no order. The attempt number has one: it rises by one with
//!    each new lease of a record.
//! 3. **Repetition.** An operation may arrive twice, because the reply to the first was lost. Acquire with the
//!    token that already holds the lease answers `Acquired` with the same attempt; complete with the token and
//!    outcome already stored answers [`Applied`](Write::Applied). A store may repeat an operation by itself, but **neither
//!    an acquire nor a release that was sent and not answered**: that is an error
//!    ([`Unavailable`](StoreErrorKind::Unavailable)), also where a repetition would be answered. The first copy of an
//!    acquire may still be on its way and claim the key after it was released, and only a caller that knows of it gives it
//!    back; the second answer to a release differs from the first.
//! 4. **Clock.** One clock decides about leases and expiry: the store's. Callers pass durations, never points
//!    in time.
//! 5. **Durability.** A completion that was acknowledged is there until it expires, within the failures that
//!    the store's own documentation names.
//! 6. **Expiry.** A record with a live lease is never purged, evicted or refused for lack of room. A completed
//!    record is never evicted before its expiry unless the operator chose so explicitly.
//! 7. **Crashes.** A crash before the acquire is applied leaves nothing; between acquire and complete it
//!    leaves a record in flight whose lease lapses; after the complete is applied it leaves the outcome. No
//!    crash leaves anything else.
//! 8. **Reads.** [`Store::get`] sees every operation on the record that was acknowledged before it was sent, by whichever
//!    process. While a [secret is rotated](crate::guide::secrets), two processes that claim two records of one key rely on
//!    it: the later one has to see the claim of the first.
//!
//! # The state machine
//!
//! ```text
//! acquire: absent or expired            -> in flight (attempt +1 if the row is still there)   Acquired
//!          in flight, same token        -> lease renewed                                       Acquired
//!          other fingerprint            -> unchanged                                           Mismatch(fingerprint)
//!          in flight, lease live        -> unchanged                                           InFlight(lease)
//!          completed or tombstone       -> unchanged                                           Completed
//!          in flight, lease lapsed      -> claim takes over this lease: new token, attempt +1  Acquired
//!                                          otherwise: unchanged                                Unknown(lease, mode)
//! renew, complete, release, abandon: with the current token only, else unchanged and Fenced
//! ```
//!
//! A record expires `ttl` after its completion; in flight it expires `lease + ttl` after the last acquire or
//! renewal. Expired means: completed or tombstone past its expiry, or in flight past its expiry with a lapsed
//! lease. An expired record is treated as absent by `acquire` and [`Store::get`]. A late `complete`, `renew` or
//! `abandon` by the current token succeeds for as long as the row is there.
//!
//! Seven rules that the table does not show:
//!
//! - A take-over names the lapsed lease. `InFlight` and `Unknown` return the token of the record's lease, and
//!   [`Claim::take_over`] carries that token back. The take-over applies only while this lease is the record's and
//!   has lapsed; otherwise the claim is answered as one that takes nothing over. So an acquire that arrives late,
//!   after a renewal or another take-over, ends no lease that its caller has not seen lapse. The token of another's
//!   lease serves for nothing else: every write carries the writer's own.
//! - A record keeps the [mode](ClaimMode) of its newest claim, and `Unknown` names it. **A transactional claim takes over
//!   only a lease of a transactional one**: what a plain execution left in flight may have had its effect. The caller keeps
//!   this rule, by naming no other lease. A lease has one mode for all of its life, so a store has nothing to compare.
//! - The current token of a *completed* record can only repeat its completion. Every other write with it is
//!   `Fenced`.
//! - A repeated release finds no record and answers `Missing`, which the caller may treat as `Applied`: the
//!   record is gone.
//! - An operation whose future was dropped, or whose caller gave up, may be applied *later* than anything the
//!   caller does next, but not later than [`LONGEST_DELAY`] after it was sent. A late acquire leaves a claim that
//!   nobody uses, so its caller gives it back, again and again until that time has passed. A store does not send what
//!   nobody waits for any more, and bounds the rest
//!   [by its time-outs](#how-late-an-operation-may-arrive); what it sends again itself counts from the call.
//! - A token belongs to one claim. The attempt is undefined when an acquire is repeated with another
//!   fingerprint, or after the record expired.
//! - Where the server deletes expired records by itself, `purge_expired` may have nothing to do and answer 0.
//!
//! # How late an operation may arrive
//!
//! An operation whose caller has given up is on its way in one of three places: in the client, in the systems and the
//! network between, or in the server. A store bounds the first by not sending what nobody waits for, the second by
//! closing the connection, and the third by the server's time-outs:
//!
//! | store | in the client | on the network | in the server |
//! |---|---|---|---|
//! | memory | applied at once, or never | | |
//! | SQLite | not executed if its caller has gone when the write lock is there | | one transaction: as long as the disk takes |
//! | Redis | not sent if its caller has gone; a reply that does not come in time closes the connection (of a Cluster: all of them, once others have been made) | a closed connection is reset, so that nothing more of it is delivered; an open one ends 30 seconds after the server stopped receiving (Linux) | one script, without waiting |
//! | PostgreSQL | not sent without a connection; given up after twice the `time_out`; the connection is closed once the server has answered, or a minute later | after the close the system goes on delivering, on Linux for about two minutes (`tcp_orphan_retries`) | `statement_timeout` and `lock_timeout`, set by the store in its own sessions |
//! | MySQL, MariaDB | the same | the same | `max_statement_time` (MariaDB), the wait for a lock (MySQL) |
//!
//! With usual settings each of these takes seconds, and at most minutes: [`LONGEST_DELAY`] leaves room for all of them.
//! What a client cannot bound:
//!
//! - A server, a proxy or a machine that is stopped with the request in its memory (`SIGSTOP`, a virtual machine that is
//!   paused or moved) and goes on later than that.
//! - PostgreSQL with synchronous replication: a statement that waits for its standby has committed and is not visible, and
//!   no time-out ends that wait.
//! - Sessions of an application's own pool: their `statement_timeout` and `lock_timeout` are the application's. Set them.
//!
//! An acquire that arrives later than that claims its key for nobody: nothing executes, and the key is blocked until the
//! lease lapses. Then a retry hears `outcome_unknown`, or executes where the route says `on_crash = "retry"`.
//!
//! # Sharing and cloning
//!
//! The engine calls a store from many tasks and threads at once. An implementation therefore keeps its state
//! behind `&self`, and holds no lock that all keys share while it waits for a server.
//!
//! `Store` does not require `Clone`. Where a store is `Clone`, as all stores of this crate are, a clone is
//! another handle on the *same* records, connections and background tasks: cheap to make, and harmless to drop.
//! What the store runs in the background ends with its last handle. [`AnyStore`] gives such handles on any
//! store. They serve
//!
//! - several engines: each attaches its own [`Wake`], and the store keeps them all;
//! - a [`Purger`](purger::Purger), which takes a handle of its own.
//!
//! # Wrappers
//!
//! A wrapper is a store around another store, such as a cache (`Cached`), a counter or an injector of faults. It
//! keeps the contract if it does the following:
//!
//! 1. **It passes claims and leases on unchanged**: key, fingerprint, token, lease, ttl, `take_over`, trace id, endpoint
//!    and mode. Above all it never makes a token of its own. The engine presents the token that *it* made to every
//!    later write, so an exchanged one would fence out the owner.
//! 2. **It answers only with stored outcomes.** An outcome never changes before it expires, so a wrapper may
//!    answer with a copy until then, and only to a claim with the same fingerprint (another one is a
//!    `Mismatch`). `Acquired`, `InFlight`, `Unknown`, `Fenced` and `Missing` are true for one moment and come
//!    from the inner store each time. [`Store::get`] is for inspection and always asks the inner store.
//! 3. **It repeats an operation with the same token or not at all** (rule 3), and neither an acquire nor a release: the
//!    caller has to know of an acquire without an answer, and the second answer to a release differs from the first.
//! 4. **It attaches every [`Wake`] to the inner store**, which knows when a record changes. Forgetting it fails
//!    no conformance case and delays every waiter in another process to its next poll.
//! 5. **It passes `purge_expired` on once, with the same limit**, and returns the answer: a purger takes less
//!    than the limit for "nothing else has expired" and pauses.
//! 6. **It keeps errors as they are.** The engine acts on [`StoreError::kind`]: it repeats an operation that is
//!    `Unavailable`, and stores a tombstone instead of an outcome that is `TooLarge`.
//! 7. **It returns the inner store's name** unless operators should see another one in logs and metrics.
//! 8. **It passes the inner store's [`inspectable`](Store::inspectable) and [`administrable`](Store::administrable) sides on,
//!    and its [`transactions`](Store::transactions).** Forgetting the first two hides the records from whoever wants to list
//!    them; forgetting the last makes it a store without transactions.
//! 9. **It passes the inner store's [`step_log`](Store::step_log) and [`outbox`](Store::outbox) on.** Forgetting the first
//!    refuses all steps; forgetting the other leaves messages undelivered, which a relay says when it is started.
//!
//! Dropping the wrapper's future drops the inner one; the rule about dropped operations holds for both. The
//! conformance suite (feature `conformance`) tests a wrapper as it tests any store.

use std::{future::Future, time::Duration};

use crate::scope::StoreKey;

pub mod admin;
#[cfg(feature = "cached")]
pub mod cached;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
pub(crate) mod erased;
mod error;
pub mod inspect;
mod label;
#[cfg(feature = "memory")]
pub mod memory;
pub mod outbox;
pub mod purger;
mod record;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod replaced;
#[cfg(feature = "sql")]
pub mod sql;
pub mod steps;
mod token;
pub mod transaction;
mod wake;
mod weakness;

pub use admin::Administrable;
pub use connect::{AnyStore, ConnectError, ConnectOptions, connect, migrate};
pub use erased::Operation;
pub use error::{StoreError, StoreErrorKind};
pub use inspect::Inspectable;
pub use label::EndpointLabel;
pub use outbox::OutboxStore;
pub use record::{Acquisition, Claim, ClaimMode, Held, Outcome, Record, RecordState, Write};
pub use steps::{StepLog, StepsRead};
pub use token::{Token, TraceId};
pub use transaction::Transactions;
pub use wake::Wake;
pub(crate) use wake::{Awaited, AwaitedKeys};
pub use weakness::{FoundWeakness, UnknownWeakness, Weakness};

/// How late an operation may be applied, counted from when it was sent.
///
/// The engine gives a claim in doubt back until this time has passed, and relies on no acquire arriving later. It is
/// shorter than any ttl that makes sense. What bounds the delay in each store, and what does not, is in
/// [the contract](self#how-late-an-operation-may-arrive).
pub const LONGEST_DELAY: Duration = Duration::from_secs(10 * 60);

/// Persistence of records. See the [module documentation](self) for the contract.
///
/// Implementations write plain `async fn`s. The engine drops one of these futures half-way only when the
/// process ends or its store time-out passes. A dropped operation has happened, has not, or will yet: a server
/// carries out what was sent to it when it arrives, within [`LONGEST_DELAY`].
pub trait Store: Send + Sync + 'static {
    /// A short lower-case name for logs, metrics and errors, such as `memory` or `redis`.
    fn name(&self) -> &'static str;

    /// Claims the key, or returns its current state. The only operation that can create a record.
    ///
    /// Never sent again by the store once it may have arrived and was not answered: that is an error, and the caller
    /// repeats it.
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

    /// Deletes at most `limit` expired records and returns how many it deleted.
    ///
    /// The work is proportional to what expired, not to what is stored. Fewer than `limit` means that nothing
    /// else can be deleted now. After millions of deletions PostgreSQL and MySQL may take minutes to find the
    /// records that other transactions had locked meanwhile.
    fn purge_expired(&self, limit: usize)
    -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// [`acquire`](Self::acquire), by a store that can answer at once, as from memory: a request that it serves needs no
    /// future then. `None` if it cannot; then it has done nothing, and is asked by `acquire`.
    fn try_acquire(&self, claim: &Claim) -> Option<Result<Acquisition, StoreError>> {
        let _ = claim;
        None
    }

    /// [`complete`](Self::complete) in the same way.
    fn try_complete(&self, held: &Held, outcome: &Outcome) -> Option<Result<Write, StoreError>> {
        let _ = (held, outcome);
        None
    }

    /// Gives the store a way to wake an engine's waiters early. A store without push ignores it.
    ///
    /// Called once by each engine that uses the store. Waking is an optimisation: waiters poll, so a lost
    /// notification costs time, never correctness.
    fn attach(&self, wake: Wake);

    /// The store's [`Inspectable`] side, if it can list its records. A wrapper passes the inner store's on.
    fn inspectable(&self) -> Option<&dyn Inspectable> {
        None
    }

    /// The store's [`StepLog`], if it keeps the steps of executions. A wrapper passes the inner store's on.
    fn step_log(&self) -> Option<&dyn StepLog> {
        None
    }

    /// The store's [`Administrable`] side, if operators can act on it. A wrapper passes the inner store's on.
    fn administrable(&self) -> Option<&dyn Administrable> {
        None
    }

    /// The store's [`OutboxStore`], if it keeps messages that were committed with a record. A wrapper passes the inner store's
    /// on.
    fn outbox(&self) -> Option<&dyn OutboxStore> {
        None
    }

    /// The store's [`Transactions`], if a record can be completed in the transaction that has the effect. A wrapper passes
    /// the inner store's on.
    fn transactions(&self) -> Option<&dyn Transactions> {
        None
    }
}
