//! One record, and every decision about it. Pure: the caller passes the time and holds the lock.

use std::time::Duration;

use super::clock::micros;
use crate::{
    fingerprint::Fingerprint,
    scope::StoreKey,
    store::{
        label::EndpointLabel,
        record::{Acquisition, Claim, ClaimMode, Held, Outcome, Record, RecordState, Write},
        token::{Token, TraceId},
    },
};

/// A record in memory. Times are microseconds on the store's clock.
pub(super) struct Row {
    key: StoreKey,
    fingerprint: Fingerprint,
    token: Token,
    trace_id: Option<TraceId>,
    endpoint: Option<EndpointLabel>,
    mode: ClaimMode,
    attempt: u32,
    state: State,
    expires: u64,
}

enum State {
    InFlight { lease_until: u64 },
    Completed(Outcome),
}

impl Row {
    /// The first record of a key.
    pub(super) fn new(claim: &Claim, now: u64) -> Self {
        let mut row = Self {
            key: claim.key,
            fingerprint: claim.fingerprint,
            token: claim.token,
            trace_id: None,
            endpoint: None,
            mode: ClaimMode::Plain,
            attempt: 0,
            state: State::InFlight { lease_until: now },
            expires: now,
        };
        row.lease_to(claim, now);
        row
    }

    pub(super) fn acquire(&mut self, claim: &Claim, now: u64) -> Acquisition {
        if self.holds(&claim.token) {
            // The reply to the first acquire was lost: the caller owns the lease already.
            self.extend(&claim.held(), now);
            return Acquisition::Acquired {
                attempt: self.attempt,
            };
        }
        if self.expired(now) {
            return self.lease_to(claim, now);
        }
        // Before any other answer: a different request must learn nothing about this one.
        if self.fingerprint != claim.fingerprint {
            return Acquisition::Mismatch {
                fingerprint: self.fingerprint,
            };
        }
        match &self.state {
            State::Completed(outcome) => Acquisition::Completed(outcome.clone()),
            State::InFlight { lease_until } if *lease_until > now => Acquisition::InFlight {
                remaining: Duration::from_micros(lease_until - now),
                lease: self.token,
            },
            // Only the lease that the caller saw lapse: it may have been taken over since.
            State::InFlight { .. } if claim.take_over == Some(self.token) => {
                self.lease_to(claim, now)
            }
            State::InFlight { .. } => Acquisition::Unknown {
                lease: self.token,
                mode: self.mode,
            },
        }
    }

    pub(super) fn renew(&mut self, held: &Held, now: u64) -> Write {
        if !self.holds(&held.token) {
            return Write::Fenced;
        }
        self.extend(held, now);
        Write::Applied
    }

    pub(super) fn complete(&mut self, held: &Held, outcome: &Outcome, now: u64) -> Write {
        if self.token != held.token {
            return Write::Fenced;
        }
        match &self.state {
            State::InFlight { .. } => {
                self.state = State::Completed(outcome.clone());
                self.expires = now.saturating_add(micros(held.ttl));
                Write::Applied
            }
            // The reply to the first completion was lost. The ttl keeps counting from the first.
            State::Completed(stored) if stored == outcome => Write::Applied,
            State::Completed(_) => Write::Fenced,
        }
    }

    pub(super) fn abandon(&mut self, token: &Token, now: u64) -> Write {
        match &mut self.state {
            State::InFlight { lease_until } if self.token == *token => {
                // A lease that lapsed earlier keeps its end: abandoning never extends it.
                *lease_until = now.min(*lease_until);
                Write::Applied
            }
            _ => Write::Fenced,
        }
    }

    pub(super) fn key(&self) -> &StoreKey {
        &self.key
    }

    /// Whether the record is in flight under this token; the lease may have lapsed.
    pub(super) fn holds(&self, token: &Token) -> bool {
        self.token == *token && !self.completed()
    }

    pub(super) fn completed(&self) -> bool {
        matches!(self.state, State::Completed(_))
    }

    /// Whether the record is past its expiry and has no live lease.
    pub(super) fn expired(&self, now: u64) -> bool {
        self.deadline() <= now
    }

    /// When the record expires unless an operation changes it.
    pub(super) fn deadline(&self) -> u64 {
        match self.state {
            State::InFlight { lease_until } => self.expires.max(lease_until),
            State::Completed(_) => self.expires,
        }
    }

    /// The bytes that count towards `max_bytes`.
    pub(super) fn bytes(&self) -> usize {
        match &self.state {
            State::Completed(Outcome::Response(response)) => response.as_bytes().len(),
            State::Completed(Outcome::Tombstone) | State::InFlight { .. } => 0,
        }
    }

    pub(super) fn record(&self, now: u64) -> Record {
        let state = match &self.state {
            State::InFlight { lease_until } => RecordState::InFlight {
                remaining: Duration::from_micros(lease_until.saturating_sub(now)),
            },
            State::Completed(outcome) => RecordState::Completed(outcome.clone()),
        };
        let expires_in = Duration::from_micros(self.deadline().saturating_sub(now));
        Record::new(
            self.fingerprint,
            self.attempt,
            state,
            expires_in,
            self.trace_id,
        )
        .mode(self.mode)
        .endpoint(self.endpoint.map(EndpointLabel::as_str))
    }

    /// A new lease. Only here the token changes and the attempt rises.
    fn lease_to(&mut self, claim: &Claim, now: u64) -> Acquisition {
        self.fingerprint = claim.fingerprint;
        self.token = claim.token;
        self.trace_id = claim.trace_id;
        self.endpoint = claim.endpoint;
        self.mode = claim.mode;
        self.attempt = self.attempt.saturating_add(1);
        self.expires = now;
        self.extend(&claim.held(), now);
        Acquisition::Acquired {
            attempt: self.attempt,
        }
    }

    fn extend(&mut self, held: &Held, now: u64) {
        let lease_until = now.saturating_add(micros(held.lease));
        self.state = State::InFlight { lease_until };
        self.expires = self
            .expires
            .max(lease_until.saturating_add(micros(held.ttl)));
    }
}
