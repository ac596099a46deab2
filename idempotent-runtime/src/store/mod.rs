//! Where records live: the contract between the engine and its persistence.
//!
//! A [`Store`] keeps one record per [`StoreKey`] and offers seven verbs on it. The engine takes every
//! decision that depends on policy; the store takes the one decision that must be atomic: *who owns
//! this key now*.
//!
//! # The contract
//!
//! 1. **Atomicity.** Each verb is one atomic step on one record. [`Store::acquire`] decides and returns
//!    everything the engine needs in that step; a look-up followed by an insert is not an acquire.
//! 2. **Fencing.** Every write after the acquire carries the [`Token`] it was acquired with. If the record
//!    now holds another token, or is not in flight, nothing changes and the answer is
//!    [`Fenced`](Write::Fenced). Tokens compare for equality only; they have no order. The attempt number
//!    has one: it rises by one with each new lease of a record.
//! 3. **Repetition.** A verb may arrive twice, because the reply to the first was lost. Acquire with the
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
//! says as much as `Applied`: the record is not there. A verb whose future was dropped, or whose caller gave up,
//! may be applied *later* than anything its caller does next; an acquire too, whose token nobody waits for then and
//! whose claim the caller must be ready to give back. A token belongs to one claim: repeating an acquire with
//! another fingerprint, or after the record expired, has no defined attempt. Where expired records vanish by
//! themselves, `purge_expired` may have nothing to delete and answer 0.
//!
//! A record expires `ttl` after its completion; in flight it expires `lease + ttl` after the last acquire
//! or renewal. Expired means: completed or tombstone past its expiry, or in flight past its expiry with a
//! lapsed lease. An expired record is treated as absent by `acquire` and [`Store::get`]. A late `complete`,
//! `renew` or `abandon` by the current token succeeds for as long as the row is there.

use std::{error::Error, fmt, future::Future, sync::Arc, time::Duration};

use crate::{
    fingerprint::Fingerprint,
    response::{Binding, StoredResponse},
    scope::StoreKey,
};

#[cfg(feature = "cached")]
pub mod cached;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
pub(crate) mod erased;
#[cfg(feature = "memory")]
pub mod memory;
pub mod purger;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sql")]
pub mod sql;
mod token;

pub use connect::{AnyStore, ConnectError, connect, migrate};
pub use token::{Token, TraceId};

/// Persistence of records. See the [module documentation](self) for the contract.
///
/// Implementations write plain `async fn`s. The engine may drop none of these futures half-way except when
/// the process ends or its store time-out passes; a dropped verb happened, did not, or will yet: what was sent to a
/// server is carried out when it arrives.
pub trait Store: Send + Sync + 'static {
    /// A short lower-case name for logs, metrics and errors, such as `memory` or `redis`.
    fn name(&self) -> &'static str;

    /// Claims the key, or says who holds it. The only verb that can create a record.
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

/// What [`Store::acquire`] needs to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The record's identity; the scope is inside.
    pub key: StoreKey,
    /// What the request asks for.
    pub fingerprint: Fingerprint,
    /// The lease's identity: made once per logical acquire, the same on every repetition.
    pub token: Token,
    /// How long the execution may stay silent.
    pub lease: Duration,
    /// How long a completed record replays.
    pub ttl: Duration,
    /// Whether a lapsed lease may be taken over (`on_crash = "retry"`).
    pub take_over: bool,
    /// The W3C trace id of the request, kept with the record for inspection.
    pub trace_id: Option<TraceId>,
}

impl Claim {
    /// A claim that does not take over and carries no trace id.
    #[must_use]
    pub fn new(
        key: StoreKey,
        fingerprint: Fingerprint,
        token: Token,
        lease: Duration,
        ttl: Duration,
    ) -> Self {
        Self {
            key,
            fingerprint,
            token,
            lease,
            ttl,
            take_over: false,
            trace_id: None,
        }
    }

    /// Whether a lapsed lease may be taken over.
    #[must_use]
    pub fn take_over(mut self, yes: bool) -> Self {
        self.take_over = yes;
        self
    }

    /// The trace id to keep with the record.
    #[must_use]
    pub fn trace_id(mut self, id: Option<TraceId>) -> Self {
        self.trace_id = id;
        self
    }

    /// What a response stored under this claim belongs to.
    pub(crate) fn binding(&self) -> Binding {
        Binding {
            key: self.key,
            fingerprint: self.fingerprint,
        }
    }

    /// What the claim holds once it was acquired.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            key: self.key,
            token: self.token,
            lease: self.lease,
            ttl: self.ttl,
        }
    }
}

/// A lease as its owner presents it to renew and complete.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Held {
    /// The record's identity.
    pub key: StoreKey,
    /// The token it was acquired with.
    pub token: Token,
    /// The lease to renew to, from now.
    pub lease: Duration,
    /// How long the completed record replays, from its completion.
    pub ttl: Duration,
}

/// The answer of [`Store::acquire`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acquisition {
    /// The caller owns the key and executes as this attempt (1 for a new record).
    Acquired {
        /// The fencing token: rises by one with each new lease of the record.
        attempt: u32,
    },
    /// The record belongs to a request that asks for something else.
    Mismatch,
    /// Another execution holds a live lease.
    InFlight {
        /// What is left of its lease.
        remaining: Duration,
    },
    /// The outcome is known.
    Completed(Outcome),
    /// The lease lapsed without an outcome, and the claim does not take over.
    Unknown,
}

/// How an execution ended, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response to replay. Cloning shares the bytes.
    Response(StoredResponse),
    /// Executed, but the response could not be kept: never executed again.
    Tombstone,
}

/// Whether a fenced write was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The token was current; the write is in force.
    Applied,
    /// The record belongs to another token, or its outcome differs; nothing changed.
    Fenced,
    /// There is no record any more; nothing changed, and none was created.
    Missing,
}

/// A record as [`Store::get`] shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// What the request asked for.
    pub fingerprint: Fingerprint,
    /// The number of the newest lease.
    pub attempt: u32,
    /// Where it stands.
    pub state: RecordState,
    /// Time until it expires.
    pub expires_in: Duration,
    /// The W3C trace id of the execution.
    pub trace_id: Option<TraceId>,
}

impl Record {
    /// A record as a store read it.
    #[must_use]
    pub fn new(
        fingerprint: Fingerprint,
        attempt: u32,
        state: RecordState,
        expires_in: Duration,
        trace_id: Option<TraceId>,
    ) -> Self {
        Self {
            fingerprint,
            attempt,
            state,
            expires_in,
            trace_id,
        }
    }
}

/// The states of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// An execution holds the key; a lease of zero has lapsed.
    InFlight {
        /// What is left of the lease.
        remaining: Duration,
    },
    /// Completed, or a tombstone.
    Completed(Outcome),
}

/// Wakes the waiters of one engine before their next poll. Cheap to clone; outliving the engine is harmless.
#[derive(Clone)]
pub struct Wake(WakeFn);

/// `None` wakes everybody.
type WakeFn = Arc<dyn Fn(Option<&StoreKey>) + Send + Sync>;

impl Wake {
    pub(crate) fn new(wake: impl Fn(Option<&StoreKey>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// The record under this key changed: whoever waits for it looks again.
    pub fn key(&self, key: &StoreKey) {
        (self.0)(Some(key));
    }

    /// Notifications may have been missed, as after a reconnect: everybody looks again.
    pub fn all(&self) {
        (self.0)(None);
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").finish_non_exhaustive()
    }
}

/// A verb that could not be carried out.
///
/// Names the store, says whether a repetition may help, and keeps its source.
#[derive(Debug)]
pub struct StoreError {
    store: &'static str,
    kind: StoreErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What kind of failure a [`StoreError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store could not be reached or did not answer; a repetition may help.
    Unavailable,
    /// The store is at its configured capacity and takes no new records.
    Full,
    /// The outcome is larger than the store takes; a repetition will not help, a smaller one would be taken.
    TooLarge,
    /// A record is there but cannot be read; a repetition will not help.
    Corrupt,
    /// The store refused the statement (permissions, a missing table); a repetition will not help.
    Refused,
}

impl StoreError {
    /// An error of the named store.
    #[must_use]
    pub fn new(store: &'static str, kind: StoreErrorKind) -> Self {
        Self {
            store,
            kind,
            source: None,
        }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether repeating the verb may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StoreErrorKind::Unavailable => "did not answer",
            StoreErrorKind::Full => {
                "is full: raise its limits, shorten the ttl or move to a larger store"
            }
            StoreErrorKind::Corrupt => "holds a record that cannot be read",
            StoreErrorKind::TooLarge => {
                "does not take so large a response: answer with less, or raise its limit"
            }
            StoreErrorKind::Refused => "refused the operation",
        };
        write!(f, "the {} store {what}", self.store)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}
