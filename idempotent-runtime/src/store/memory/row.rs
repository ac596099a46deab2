//! One record, and every decision about it. Pure: the caller passes the time and holds the lock.

use std::{
    mem,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    clock::{Clock, micros},
    times::Times,
};
use crate::{
    fingerprint::Fingerprint,
    scope::StoreKey,
    store::{
        admin::Seen,
        inspect::{Entry, EntryState},
        label::EndpointLabel,
        record::{Acquisition, Claim, ClaimMode, Held, Outcome, Record, RecordState, Write},
        steps::{StepsRead, check_append},
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

/// The largest response that is copied, in bytes. To share it takes an allocation more for its count, which is one more
/// place for each record, and costs more when it expires, cold, than a few bytes cost now.
const COPIED: usize = 512;

/// An outcome as the record keeps it: copied if it is small, else shared.
fn kept(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Response(response) if response.as_bytes().len() <= COPIED => {
            Outcome::Response(response.copied())
        }
        outcome => outcome.clone(),
    }
}

enum State {
    InFlight {
        lease_until: u64,
        created: u64,
        /// What the execution has appended to its log of steps.
        steps: Steps,
    },
    Completed(Outcome, Times),
}

type Steps = Option<Box<[u8]>>;

impl Row {
    /// The first record of a key.
    pub(super) fn new(claim: &Claim, now: u64) -> Self {
        let created = now;
        let mut row = Self {
            key: claim.key,
            fingerprint: claim.fingerprint,
            token: claim.token,
            trace_id: None,
            endpoint: None,
            mode: ClaimMode::Plain,
            attempt: 0,
            state: State::InFlight {
                lease_until: now,
                created,
                steps: None,
            },
            expires: now,
        };
        row.lease_to(claim, now, created, None);
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
            return self.lease_to(claim, now, now, None);
        }
        // Before any other answer: a different request must learn nothing about this one.
        if self.fingerprint != claim.fingerprint {
            return Acquisition::Mismatch {
                fingerprint: self.fingerprint,
            };
        }
        match &mut self.state {
            State::Completed(outcome, _) => Acquisition::Completed(outcome.clone()),
            State::InFlight { lease_until, .. } if *lease_until > now => Acquisition::InFlight {
                remaining: Duration::from_micros(*lease_until - now),
                lease: self.token,
            },
            // Only the lease that the caller saw lapse: it may have been taken over since.
            State::InFlight { created, steps, .. } if claim.take_over == Some(self.token) => {
                let (created, steps) = (*created, mem::take(steps));
                self.lease_to(claim, now, created, steps)
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
            State::InFlight { created, .. } => {
                self.state = State::Completed(kept(outcome), Times::new(*created..now));
                self.expires = now.saturating_add(micros(held.ttl));
                Write::Applied
            }
            // The reply to the first completion was lost. The ttl keeps counting from the first.
            State::Completed(stored, _) if stored == outcome => Write::Applied,
            State::Completed(..) => Write::Fenced,
        }
    }

    pub(super) fn abandon(&mut self, token: &Token, now: u64) -> Write {
        match &mut self.state {
            State::InFlight { lease_until, .. } if self.token == *token => {
                // A lease that lapsed earlier keeps its end: abandoning never extends it.
                *lease_until = now.min(*lease_until);
                Write::Applied
            }
            _ => Write::Fenced,
        }
    }

    /// The log of the execution that holds this token.
    pub(super) fn read_steps(&self, token: &Token) -> StepsRead {
        match &self.state {
            State::InFlight { steps, .. } if self.token == *token => {
                StepsRead::Log(Bytes::copy_from_slice(steps.as_deref().unwrap_or_default()))
            }
            _ => StepsRead::Fenced,
        }
    }

    pub(super) fn append_step(&mut self, token: &Token, at: usize, bytes: &[u8]) -> Write {
        match &mut self.state {
            State::InFlight { steps, .. } if self.token == *token => {
                let log = steps.as_deref().unwrap_or_default();
                if let Err(answer) = check_append(log, at, bytes) {
                    return answer;
                }
                *steps = Some([log, bytes].concat().into());
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

    /// Whether it is still the record that an operator saw.
    pub(super) fn is(&self, seen: &Seen) -> bool {
        (self.key, self.fingerprint, self.attempt) == (seen.key, seen.fingerprint, seen.attempt)
    }

    pub(super) fn completed(&self) -> bool {
        matches!(self.state, State::Completed(..))
    }

    /// Whether the record is past its expiry and has no live lease.
    pub(super) fn expired(&self, now: u64) -> bool {
        self.deadline() <= now
    }

    /// When the record expires unless an operation changes it.
    pub(super) fn deadline(&self) -> u64 {
        match self.state {
            State::InFlight { lease_until, .. } => self.expires.max(lease_until),
            State::Completed(..) => self.expires,
        }
    }

    /// The bytes that count towards `max_bytes`.
    pub(super) fn bytes(&self) -> usize {
        match &self.state {
            State::InFlight { steps, .. } => steps.as_ref().map_or(0, |steps| steps.len()),
            State::Completed(..) => self.response_bytes(),
        }
    }

    fn response_bytes(&self) -> usize {
        match &self.state {
            State::Completed(Outcome::Response(response), _) => response.as_bytes().len(),
            State::Completed(Outcome::Tombstone, _) | State::InFlight { .. } => 0,
        }
    }

    pub(super) fn record(&self, now: u64, clock: &Clock) -> Record {
        let state = match &self.state {
            State::InFlight { lease_until, .. } => RecordState::InFlight {
                remaining: between(now, *lease_until),
            },
            State::Completed(outcome, _) => RecordState::Completed(outcome.clone()),
        };
        let expires_in = between(now, self.deadline());
        let (created_at, completed_at) = self.times(clock);
        Record::new(
            self.fingerprint,
            self.attempt,
            state,
            expires_in,
            self.trace_id,
        )
        .mode(self.mode)
        .endpoint(self.endpoint.map(EndpointLabel::as_str))
        .times(created_at, completed_at)
    }

    /// The record without its response; `None` if it has expired.
    pub(super) fn entry(&self, now: u64, clock: &Clock) -> Option<Entry> {
        if self.expired(now) {
            return None;
        }
        let state = match &self.state {
            State::InFlight { lease_until, .. } if *lease_until > now => EntryState::InFlight {
                remaining: between(now, *lease_until),
            },
            State::InFlight { lease_until, .. } => EntryState::Unknown {
                lapsed: between(*lease_until, now),
            },
            State::Completed(Outcome::Response(_), _) => EntryState::Completed,
            State::Completed(Outcome::Tombstone, _) => EntryState::Tombstone,
        };
        let (created_at, completed_at) = self.times(clock);
        let expires_in = between(now, self.deadline());
        Some(Entry {
            attempt: self.attempt,
            mode: self.mode,
            endpoint: self.endpoint.map(|endpoint| endpoint.as_str().into()),
            created_at,
            completed_at,
            stored_bytes: self.response_bytes() as u64,
            trace_id: self.trace_id,
            ..Entry::new(self.key, self.fingerprint, state, expires_in)
        })
    }

    /// When the record was created and completed, as far as that is known.
    fn times(&self, clock: &Clock) -> (Option<SystemTime>, Option<SystemTime>) {
        let (created, completed) = match &self.state {
            State::InFlight { created, .. } => (Some(*created), None),
            State::Completed(_, times) => (times.created(), Some(times.completed())),
        };
        let wall = |at| clock.wall(at);
        (created.map(wall), completed.map(wall))
    }

    /// A new lease. Only here the token changes and the attempt rises.
    fn lease_to(&mut self, claim: &Claim, now: u64, created: u64, steps: Steps) -> Acquisition {
        self.fingerprint = claim.fingerprint;
        self.token = claim.token;
        self.trace_id = claim.trace_id;
        self.endpoint = claim.endpoint;
        self.mode = claim.mode;
        self.attempt = self.attempt.saturating_add(1);
        self.state = State::InFlight {
            lease_until: now,
            created,
            steps,
        };
        self.expires = now;
        self.extend(&claim.held(), now);
        Acquisition::Acquired {
            attempt: self.attempt,
        }
    }

    /// Of a record in flight.
    fn extend(&mut self, held: &Held, now: u64) {
        let until = now.saturating_add(micros(held.lease));
        if let State::InFlight { lease_until, .. } = &mut self.state {
            *lease_until = until;
        }
        self.expires = self.expires.max(until.saturating_add(micros(held.ttl)));
    }
}

/// The time from one moment to the other; zero if that one is the earlier.
fn between(from: u64, to: u64) -> Duration {
    Duration::from_micros(to.saturating_sub(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every completed record is one allocation of this size.
    #[test]
    fn a_row_has_no_room_to_waste() {
        assert_eq!(size_of::<Row>(), 152);
    }
}
