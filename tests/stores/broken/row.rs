//! The records of a broken store, and the flaws that concern them.

use std::time::Duration;

use idempotent_runtime::{
    Fingerprint, StoreKey,
    store::{
        Acquisition, Claim, ClaimMode, EndpointLabel, Held, Outcome, Record, RecordState, Token,
        TraceId, Write, conformance::response,
    },
};
use tokio::time::Instant;

use super::Flaw;

/// A record.
#[derive(Clone)]
pub(super) struct Row {
    /// The flaw of its store.
    pub(super) flaw: Flaw,
    pub(super) key: StoreKey,
    pub(super) fingerprint: Fingerprint,
    pub(super) token: Token,
    pub(super) attempt: u32,
    pub(super) trace_id: Option<TraceId>,
    pub(super) mode: ClaimMode,
    pub(super) endpoint: Option<EndpointLabel>,
    pub(super) created: Instant,
    pub(super) completed: Option<Instant>,
    pub(super) since: Instant,
    pub(super) lease_until: Instant,
    pub(super) expires: Instant,
    pub(super) outcome: Option<Outcome>,
    pub(super) steps: Vec<u8>,
    /// The stored outcome was overwritten with other bytes.
    pub(super) unreadable: bool,
}

impl Row {
    pub(super) fn leased(flaw: Flaw, claim: &Claim, now: Instant) -> Self {
        let lease_until = now + claim.lease;
        Self {
            flaw,
            key: claim.key,
            fingerprint: claim.fingerprint,
            token: claim.token,
            attempt: 1,
            trace_id: claim.trace_id,
            mode: if flaw == Flaw::ForgetsMode {
                ClaimMode::Plain
            } else {
                claim.mode
            },
            endpoint: claim.endpoint,
            created: now,
            completed: None,
            since: now,
            lease_until,
            expires: lease_until + claim.ttl,
            outcome: None,
            steps: Vec::new(),
            unreadable: false,
        }
    }

    pub(super) fn created(flaw: Flaw, held: &Held, outcome: Outcome, now: Instant) -> Self {
        let unknown = Fingerprint::from_bytes([0; 32]);
        let claim = Claim::new(held.key, unknown, held.token, held.lease, held.ttl);
        Self {
            outcome: Some(outcome),
            ..Self::leased(flaw, &claim, now)
        }
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    /// Answers an acquire of this record's key.
    pub(super) fn acquire(&mut self, claim: &Claim, now: Instant) -> Acquisition {
        if self.token == claim.token && self.is(Flaw::RepeatReopens) {
            self.outcome = None;
        }
        if self.token == claim.token && self.outcome.is_none() {
            return self.repeat(claim, now);
        }
        if self.expired(now) {
            if self.is(Flaw::ExpiredMismatch) && self.fingerprint != claim.fingerprint {
                return Acquisition::Mismatch {
                    fingerprint: self.fingerprint,
                };
            }
            return self.take_over(claim, now);
        }
        let live = self.outcome.is_none() && self.lease_until > now;
        if self.is(Flaw::ConflictFirst) && live {
            return self.in_flight(claim, now);
        }
        if self.fingerprint != claim.fingerprint && !self.is(Flaw::NoFingerprint) {
            return Acquisition::Mismatch {
                fingerprint: self.fingerprint,
            };
        }
        if let Some(outcome) = self.outcome.clone() {
            if self.is(Flaw::TakesOverCompleted) && self.named_by(claim) && self.lease_until <= now
            {
                return self.take_over(claim, now);
            }
            if self.is(Flaw::Slides) {
                self.expires = now + claim.ttl;
            }
            return Acquisition::Completed(outcome);
        }
        if live && !(self.is(Flaw::TakesOverLive) && self.named_by(claim)) {
            return self.in_flight(claim, now);
        }
        if self.named_by(claim) || self.is(Flaw::TakesOverAlways) {
            return self.take_over(claim, now);
        }
        Acquisition::Unknown {
            lease: self.shown_to(claim),
            mode: self.mode,
        }
    }

    /// Whether the claim takes this lease over, should it have lapsed.
    pub(super) fn named_by(&self, claim: &Claim) -> bool {
        match claim.take_over {
            Some(_) if self.is(Flaw::TakesOverAny) => true,
            Some(lease) => lease == self.token,
            None => false,
        }
    }

    /// The lease that an answer names.
    fn shown_to(&self, claim: &Claim) -> Token {
        if self.is(Flaw::NamesTheClaim) {
            claim.token
        } else {
            self.token
        }
    }

    pub(super) fn in_flight(&self, claim: &Claim, now: Instant) -> Acquisition {
        Acquisition::InFlight {
            remaining: self.left(now),
            lease: self.shown_to(claim),
        }
    }

    fn repeat(&mut self, claim: &Claim, now: Instant) -> Acquisition {
        if self.is(Flaw::RepeatConflicts) {
            return self.in_flight(claim, now);
        }
        if self.is(Flaw::RepeatCounts) {
            self.attempt += 1;
        }
        if !self.is(Flaw::RepeatKeepsLease) {
            self.extend(&claim.held(), now);
        }
        Acquisition::Acquired {
            attempt: self.attempt,
        }
    }

    pub(super) fn take_over(&mut self, claim: &Claim, now: Instant) -> Acquisition {
        let attempt = if self.is(Flaw::ForgetsAttempt) {
            1
        } else {
            self.attempt + 1
        };
        let token = if self.is(Flaw::KeepsToken) {
            self.token
        } else {
            claim.token
        };
        let trace_id = if self.is(Flaw::KeepsTraceId) {
            self.trace_id
        } else {
            claim.trace_id
        };
        let leased = Self::leased(self.flaw, claim, now);
        let created = if self.expired(now) || self.is(Flaw::TakeOverCreates) {
            now
        } else {
            self.created
        };
        let expires = if self.is(Flaw::TakeOverKeepsExpiry) && !self.expired(now) {
            self.expires
        } else {
            leased.expires
        };
        let steps = if self.keeps_steps(now) {
            std::mem::take(&mut self.steps)
        } else {
            Vec::new()
        };
        *self = Self {
            token,
            attempt,
            trace_id,
            created,
            expires,
            steps,
            ..leased
        };
        Acquisition::Acquired { attempt }
    }

    /// Whether a new lease of this record has the log of the old one.
    fn keeps_steps(&self, now: Instant) -> bool {
        if self.expired(now) {
            self.is(Flaw::StepsOutliveExpiry)
        } else {
            !self.is(Flaw::TakeOverForgetsSteps)
        }
    }

    pub(super) fn extend(&mut self, held: &Held, now: Instant) {
        self.lease_until = now + held.lease;
        if !self.is(Flaw::RenewKeepsExpiry) {
            self.expires = self.expires.max(self.lease_until + held.ttl);
        }
    }

    pub(super) fn complete(&mut self, held: &Held, outcome: Outcome, now: Instant) -> Write {
        self.outcome = Some(outcome);
        self.completed = Some(now);
        self.expires = if self.is(Flaw::TtlFromAcquire) {
            self.since
        } else {
            now
        } + held.ttl;
        Write::Applied
    }

    pub(super) fn owned_by(&self, token: &Token) -> bool {
        self.outcome.is_none() && (self.token == *token || self.is(Flaw::NoFence))
    }

    pub(super) fn expired(&self, now: Instant) -> bool {
        let lapsed = self.lease_until <= now;
        match self.outcome {
            Some(_) => self.expires <= now,
            None if self.is(Flaw::UnknownNeverExpires) => false,
            None if self.is(Flaw::UnknownExpiresWithLease) => lapsed,
            None => self.expires <= now && lapsed,
        }
    }

    pub(super) fn left(&self, now: Instant) -> Duration {
        let from = if self.is(Flaw::WholeLease) {
            self.since
        } else {
            now
        };
        self.lease_until.saturating_duration_since(from)
    }

    pub(super) fn record(&self, now: Instant) -> Record {
        let state = match &self.outcome {
            Some(outcome) => RecordState::Completed(outcome.clone()),
            None => RecordState::InFlight {
                remaining: self.left(now),
            },
        };
        let expires_in = self.expires.saturating_duration_since(now);
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
}

pub(super) fn find<'a>(flaw: Flaw, rows: &'a mut [Row], key: &StoreKey) -> Option<&'a mut Row> {
    let part = if flaw == Flaw::HalfAKey { 16 } else { 32 };
    rows.iter_mut()
        .find(|row| row.key.as_bytes()[..part] == key.as_bytes()[..part])
}

pub(super) fn stored(flaw: Flaw, outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Tombstone if flaw == Flaw::TombstoneIsEmpty => {
            Outcome::Response(response(200, &[], b""))
        }
        Outcome::Response(complete) if flaw == Flaw::Truncates => {
            let (status, _, body) = complete.decode().expect("a valid response");
            let cut = &body[..body.len().min(64 << 10)];
            if cut.len() == body.len() {
                return outcome.clone();
            }
            Outcome::Response(response(status.as_u16(), &[], cut))
        }
        _ => outcome.clone(),
    }
}
