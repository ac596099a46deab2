//! The record and the store's operations on it: the state machine of the contract, section 9.
//!
//! Each function is one atomic step at the store. Times are what is left of them, in ticks of the store's clock.

use crate::{
    request::{Payload, RequestId},
    rules::StoreFault,
};

/// The identity of a lease. The model gives it the number of the request that made it.
pub type Token = RequestId;

/// What the store holds for the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// Whose lease it is or was.
    pub token: Token,
    /// The fencing token.
    pub attempt: u8,
    /// What the request asked for that made the record.
    pub payload: Payload,
    /// The outcome, named after the execution that made it; `None` while in flight.
    pub outcome: Option<Token>,
    /// Ticks until the lease lapses.
    pub lease: u8,
    /// Ticks until the record expires.
    pub expiry: u8,
}

/// Which lapsed lease an acquire may take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TakeOver {
    /// None.
    No,
    /// This one.
    Lease(Token),
    /// Whichever lapsed: what the contract rules out.
    Any,
}

/// What is sent to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Asks for the right to execute.
    Acquire(TakeOver),
    /// Prolongs the lease.
    Renew,
    /// Stores the outcome.
    Complete,
    /// Deletes the record: nothing happened under this token.
    Release,
    /// Ends the lease and keeps the record.
    Abandon,
}

/// What the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    /// The lease is the caller's, with this attempt.
    Acquired(u8),
    /// Another lease is live.
    InFlight,
    /// This lease lapsed without an outcome.
    Unknown(Token),
    /// This outcome is stored.
    Completed(Token),
    /// The record belongs to a request that asks for something else.
    Mismatch,
    /// The write was applied.
    Done,
    /// The token is not the record's.
    Fenced,
    /// There is no record.
    Missing,
}

/// The store: its times, and the fault that a test gives it.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    /// Ticks that a lease lasts.
    pub lease: u8,
    /// Ticks that a record is kept once its lease lapsed or its outcome was stored.
    pub ttl: u8,
    /// A deliberate fault.
    pub fault: Option<StoreFault>,
}

impl Record {
    /// Whether an execution may still be going on under this record.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.outcome.is_none()
    }

    /// Whether the lease is live.
    #[must_use]
    pub fn live(&self) -> bool {
        self.in_flight() && self.lease > 0
    }

    /// Whether the record is past its expiry.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.expiry == 0 && !self.live()
    }
}

impl Store {
    fn has(self, fault: StoreFault) -> bool {
        self.fault == Some(fault)
    }

    /// Whether the store may forget or replace the record.
    #[must_use]
    pub fn forgets(self, record: &Record) -> bool {
        record.expired()
            || self.has(StoreFault::PurgesLiveLeases) && record.expiry == 0
            || self.has(StoreFault::EvictsCompletedRecords) && !record.in_flight()
    }

    /// Executes an operation for `token`, which asks for `payload`.
    pub fn execute(
        self,
        record: &mut Option<Record>,
        operation: Operation,
        token: Token,
        payload: Payload,
    ) -> Reply {
        match operation {
            Operation::Acquire(take_over) => self.acquire(record, token, payload, take_over),
            Operation::Renew => self.renew(record, token),
            Operation::Complete => self.complete(record, token),
            Operation::Release => self.release(record, token),
            Operation::Abandon => self.abandon(record, token),
        }
    }

    fn acquire(
        self,
        record: &mut Option<Record>,
        token: Token,
        payload: Payload,
        take_over: TakeOver,
    ) -> Reply {
        let Some(current) = record else {
            return self.lease_to(record, token, payload);
        };
        if self.forgets(current) {
            return self.lease_to(record, token, payload);
        }
        if current.in_flight()
            && current.token == token
            && !self.has(StoreFault::RepetitionIsAConflict)
        {
            current.lease = self.lease;
            current.expiry = self.lease + self.ttl;
            return Reply::Acquired(current.attempt);
        }
        if current.payload != payload && !self.has(StoreFault::PayloadIsNotCompared) {
            return Reply::Mismatch;
        }
        if let Some(outcome) = current.outcome {
            return Reply::Completed(outcome);
        }
        if current.lease > u8::from(self.has(StoreFault::LeaseLapsesEarly)) {
            return Reply::InFlight;
        }
        if take_over == TakeOver::Any || take_over == TakeOver::Lease(current.token) {
            return self.lease_to(record, token, payload);
        }
        Reply::Unknown(current.token)
    }

    /// A new lease: the first of a new record, or the next of the one that is there.
    pub fn lease_to(self, record: &mut Option<Record>, token: Token, payload: Payload) -> Reply {
        let raise = u8::from(!self.has(StoreFault::TakeOverKeepsTheAttempt));
        let attempt = record.map_or(1, |old| old.attempt + raise);
        *record = Some(Record {
            token,
            attempt,
            payload,
            outcome: None,
            lease: self.lease,
            expiry: self.lease + self.ttl,
        });
        Reply::Acquired(attempt)
    }

    /// The record, if `token` may still write to it.
    fn fenced(
        self,
        record: &mut Option<Record>,
        token: Token,
        unless: StoreFault,
    ) -> Result<&mut Record, Reply> {
        match record {
            None => Err(Reply::Missing),
            Some(current) if self.has(unless) || current.in_flight() && current.token == token => {
                Ok(current)
            }
            Some(_) => Err(Reply::Fenced),
        }
    }

    fn renew(self, record: &mut Option<Record>, token: Token) -> Reply {
        if let Some(current) = record
            && current.token == token
            && self.has(StoreFault::RenewReopensTheRecord)
        {
            current.outcome = None;
        }
        match self.fenced(record, token, StoreFault::RenewIgnoresTheToken) {
            Ok(current) => {
                current.lease = self.lease;
                if !self.has(StoreFault::PurgesLiveLeases) {
                    current.expiry = self.lease + self.ttl;
                }
                Reply::Done
            }
            Err(reply) => reply,
        }
    }

    fn complete(self, record: &mut Option<Record>, token: Token) -> Reply {
        if record.is_some_and(|current| current.outcome == Some(token)) {
            return Reply::Done; // Repeated after a lost reply.
        }
        let lapsed = record.is_some_and(|current| current.token == token && !current.live());
        if lapsed && self.has(StoreFault::LateCompleteIsRefused) {
            return Reply::Fenced;
        }
        match self.fenced(record, token, StoreFault::CompleteIgnoresTheToken) {
            Ok(current) => {
                current.outcome = Some(token);
                current.lease = 0;
                current.expiry = self.ttl;
                Reply::Done
            }
            Err(Reply::Fenced) if self.has(StoreFault::FencedCompleteIsAcknowledged) => Reply::Done,
            Err(reply) => reply,
        }
    }

    fn release(self, record: &mut Option<Record>, token: Token) -> Reply {
        match self.fenced(record, token, StoreFault::ReleaseIgnoresTheToken) {
            Ok(_) => {
                *record = None;
                Reply::Done
            }
            Err(reply) => reply,
        }
    }

    fn abandon(self, record: &mut Option<Record>, token: Token) -> Reply {
        match self.fenced(record, token, StoreFault::AbandonIgnoresTheToken) {
            Ok(current) => {
                current.lease = 0;
                Reply::Done
            }
            Err(reply) => reply,
        }
    }
}
