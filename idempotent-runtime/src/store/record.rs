//! What a store is given and what it answers: claims, leases, outcomes and records.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use super::{
    label::EndpointLabel,
    token::{Token, TraceId},
};
use crate::{
    fingerprint::Fingerprint,
    response::{Binding, StoredResponse},
    scope::StoreKey,
};

/// A request for the key: the argument of [`Store::acquire`](super::Store::acquire).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The record's identity; the scope is inside.
    pub key: StoreKey,
    /// What the request asks for.
    pub fingerprint: Fingerprint,
    /// The lease's identity: made once per logical acquire, the same on every repetition.
    pub token: Token,
    /// How long the execution may go without a renewal.
    pub lease: Duration,
    /// How long a completed record replays.
    pub ttl: Duration,
    /// The lapsed lease to take over, as [`Acquisition::Unknown`] named it. Only this lease is taken over, and only while
    /// it is the record's and has lapsed.
    pub take_over: Option<Token>,
    /// The W3C trace id of the request, kept with the record for inspection.
    pub trace_id: Option<TraceId>,
    /// The endpoint of the request as logs and metrics name it, kept with the record for inspection.
    pub endpoint: Option<EndpointLabel>,
    /// How the outcome will be written, kept with the record.
    pub mode: ClaimMode,
}

/// How the owner of a claim writes its outcome. A record keeps the mode of its newest claim.
///
/// A crashed execution under a plain claim may have had its effect, and nobody can tell. Under a transactional one the
/// effect and the outcome are committed together: while the record is in flight, nothing was committed.
///
/// Exhaustive on purpose: every store has to keep every mode, as with [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClaimMode {
    /// By [`Store::complete`](super::Store::complete), after the effect.
    #[default]
    Plain,
    /// In the database transaction that has the effect.
    Transactional,
}

impl Claim {
    /// A plain claim that does not take over and carries neither a trace id nor an endpoint.
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
            take_over: None,
            trace_id: None,
            endpoint: None,
            mode: ClaimMode::Plain,
        }
    }

    /// Takes over the lapsed lease with this token.
    #[must_use]
    pub fn take_over(mut self, lease: Token) -> Self {
        self.take_over = Some(lease);
        self
    }

    /// The trace id to keep with the record.
    #[must_use]
    pub fn trace_id(mut self, id: Option<TraceId>) -> Self {
        self.trace_id = id;
        self
    }

    /// The endpoint to keep with the record.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Option<EndpointLabel>) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// How the outcome will be written.
    #[must_use]
    pub fn mode(mut self, mode: ClaimMode) -> Self {
        self.mode = mode;
        self
    }

    /// The record that a response stored under this claim is bound to.
    pub(crate) fn binding(&self) -> Binding {
        Binding {
            key: self.key,
            fingerprint: self.fingerprint,
        }
    }

    /// The lease that the claim holds once it is acquired.
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

/// The answer of [`Store::acquire`](super::Store::acquire).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acquisition {
    /// The caller owns the key and executes as this attempt (1 for a new record).
    Acquired {
        /// The fencing token: rises by one with each new lease of the record.
        attempt: u32,
    },
    /// The record belongs to a request that asks for something else.
    Mismatch {
        /// What that request asks for: it shows in which respect the two differ.
        fingerprint: Fingerprint,
    },
    /// Another execution holds a live lease.
    InFlight {
        /// The rest of its lease.
        remaining: Duration,
        /// The token of that lease.
        lease: Token,
    },
    /// The outcome is known.
    Completed(Outcome),
    /// The lease lapsed without an outcome, and the claim does not take over this lease.
    Unknown {
        /// The token of the lapsed lease.
        lease: Token,
        /// The mode of the claim that held it.
        mode: ClaimMode,
    },
}

/// How an execution ended, as it is stored.
///
/// Exhaustive on purpose: every store has to keep every outcome, so a new one must stop a store from
/// compiling rather than be dropped by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response to replay. Cloning shares the bytes.
    Response(StoredResponse),
    /// Executed, but the response could not be stored: never executed again.
    Tombstone,
}

/// Whether a fenced write was applied.
///
/// Exhaustive on purpose: the caller of a write has to decide about each of these answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The token was current; the write is in force.
    Applied,
    /// The record belongs to another token, or its outcome differs; nothing changed.
    Fenced,
    /// There is no record any more; nothing changed, and none was created.
    Missing,
}

/// A record as [`Store::get`](super::Store::get) returns it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// What the request asked for.
    pub fingerprint: Fingerprint,
    /// The number of the newest lease.
    pub attempt: u32,
    /// Its state.
    pub state: RecordState,
    /// Time until it expires.
    pub expires_in: Duration,
    /// The W3C trace id of the execution.
    pub trace_id: Option<TraceId>,
    /// The mode of the newest claim.
    pub mode: ClaimMode,
    /// The endpoint of the newest claim, as logs and metrics name it; `None` where the claim named none, where the store
    /// does not keep it, and in a record of an earlier version.
    pub endpoint: Option<Cow<'static, str>>,
    /// When the key was first claimed, by the store's clock. A take-over does not change it. `None` where the store does
    /// not keep it, and in a record of an earlier version.
    pub created_at: Option<SystemTime>,
    /// When the outcome was stored, by the store's clock. `None` in flight, where the store does not keep it, and in a
    /// record of an earlier version.
    pub completed_at: Option<SystemTime>,
}

impl Record {
    /// A record as a store read it, plainly claimed, of which neither endpoint nor times are known.
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
            mode: ClaimMode::Plain,
            endpoint: None,
            created_at: None,
            completed_at: None,
        }
    }

    /// The mode of the newest claim.
    #[must_use]
    pub fn mode(mut self, mode: ClaimMode) -> Self {
        self.mode = mode;
        self
    }

    /// The endpoint of the newest claim.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Option<impl Into<Cow<'static, str>>>) -> Self {
        self.endpoint = endpoint.map(Into::into);
        self
    }

    /// When the key was first claimed, and when the outcome was stored, by the store's clock.
    #[must_use]
    pub fn times(
        mut self,
        created_at: Option<SystemTime>,
        completed_at: Option<SystemTime>,
    ) -> Self {
        (self.created_at, self.completed_at) = (created_at, completed_at);
        self
    }
}

/// The states of a record.
///
/// Exhaustive on purpose: they are those of the contract's [state machine](super#the-state-machine).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// An execution holds the key. A remaining lease of zero has lapsed.
    InFlight {
        /// The rest of the lease.
        remaining: Duration,
    },
    /// Completed, or a tombstone.
    Completed(Outcome),
}
