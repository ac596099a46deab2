//! One record as a database returned it, and every decision about it that is not taken in SQL. Pure.

use std::{
    error::Error,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::dialect::Driver;
use crate::{
    fingerprint::Fingerprint,
    response::StoredResponse,
    scope::StoreKey,
    store::{
        inspect::{Entry, EntryState},
        record::{Acquisition, Claim, ClaimMode, Outcome, Record, RecordState, Write},
        token::{Token, TraceId},
    },
};

/// The values of the column `state`.
pub(super) const IN_FLIGHT: i64 = 0;
const COMPLETED: i64 = 1;
const TOMBSTONE: i64 = 2;

/// When to look again at a record that another transaction has locked. Nobody knows for how long it does.
const LOCKED: Duration = Duration::from_millis(500);

/// The column of a claim's result that says whether the claim acquired the key.
pub(super) const WON: usize = 9;

/// A record. Its times count from the moment at which the server read it.
#[derive(Debug)]
pub(super) struct Row {
    state: i64,
    fingerprint: Fingerprint,
    token: Token,
    pub(super) attempt: u32,
    /// Microseconds left of the lease; zero or negative if it has lapsed.
    lease_left: i64,
    /// Microseconds left until the expiry.
    expires_left: i64,
    trace_id: Option<TraceId>,
    response: Option<Bytes>,
    mode: ClaimMode,
}

/// What is kept with a record for people who look at it.
struct Details {
    endpoint: Option<String>,
    created_at: Option<SystemTime>,
    completed_at: Option<SystemTime>,
}

/// What an acquire does about the record that it found.
#[derive(Debug)]
pub(super) enum Assessment {
    /// Answer with this.
    Decided(Acquisition),
    /// Renew the lease: the claim owns it, from a first acquire whose reply was lost.
    Own,
    /// Lease it to the claim: it has expired, or lapsed and may be taken over.
    Free,
}

/// A column holds a value that this version of the crate does not store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unrecognised {
    what: &'static str,
}

impl Row {
    /// Reads the columns `state, fingerprint, token, attempt, lease_left, expires_left, trace_id, response, tx_token`.
    pub(super) fn read<D: Driver>(row: &D::Row) -> Result<Self, sqlx::Error> {
        let token = exactly::<_, D>(2, "token", row)?;
        let transactional = D::bytes(row, 8)?.is_some_and(|claimed| claimed == token);
        Ok(Self {
            state: D::int(row, 0)?,
            fingerprint: Fingerprint::from_bytes(exactly::<_, D>(1, "fingerprint", row)?),
            token: Token::from_bytes(token),
            attempt: u32::try_from(D::int(row, 3)?).map_err(|_| unrecognised(3, "attempt"))?,
            lease_left: D::int(row, 4)?,
            expires_left: D::int(row, 5)?,
            // A trace id is for inspection only, so an invalid one is ignored.
            trace_id: D::bytes(row, 6)?
                .and_then(|bytes| bytes.try_into().ok())
                .and_then(TraceId::from_bytes),
            response: D::bytes(row, 7)?.map(Bytes::from),
            mode: if transactional {
                ClaimMode::Transactional
            } else {
                ClaimMode::Plain
            },
        })
    }

    /// Reads the columns of a record for inspection: the same, then `endpoint, created_at, completed_at`. `None` if the
    /// record has expired.
    pub(super) fn read_record<D: Driver>(
        row: &D::Row,
    ) -> Result<Result<Option<Record>, Unrecognised>, sqlx::Error> {
        let (core, details) = (Self::read::<D>(row)?, Details::read::<D>(row)?);
        Ok(core.record(details))
    }

    /// Reads the column `store_key` alone.
    pub(super) fn read_key<D: Driver>(row: &D::Row) -> Result<StoreKey, sqlx::Error> {
        exactly::<_, D>(0, "store_key", row).map(StoreKey::from_bytes)
    }

    /// Reads the columns of a listed record, which has not expired: the same, then `store_key, response_bytes`.
    pub(super) fn read_entry<D: Driver>(row: &D::Row) -> Result<Entry, sqlx::Error> {
        let (core, details) = (Self::read::<D>(row)?, Details::read::<D>(row)?);
        let key = StoreKey::from_bytes(exactly::<_, D>(12, "store_key", row)?);
        let bytes = u64::try_from(D::int(row, 13)?).unwrap_or(0);
        let state = match core.state {
            IN_FLIGHT if core.lease_left > 0 => EntryState::InFlight {
                remaining: left_of(core.lease_left),
            },
            IN_FLIGHT => EntryState::Unknown {
                lapsed: left_of(core.lease_left.saturating_neg()),
            },
            COMPLETED => EntryState::Completed,
            TOMBSTONE => EntryState::Tombstone,
            _ => return Err(unrecognised(0, "state")),
        };
        let mut entry = Entry::new(key, core.fingerprint, state, core.expires_in());
        entry.attempt = core.attempt;
        entry.mode = core.mode;
        entry.endpoint = details.endpoint.map(Into::into);
        entry.created_at = details.created_at;
        entry.completed_at = details.completed_at.filter(|_| core.completed());
        entry.stored_bytes = if core.state == COMPLETED { bytes } else { 0 };
        entry.trace_id = core.trace_id;
        Ok(entry)
    }

    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    /// The state machine's decision about a claim. Changes nothing.
    pub(super) fn assess(&self, claim: &Claim) -> Result<Assessment, Unrecognised> {
        Ok(if self.holds(&claim.token) {
            Assessment::Own
        } else if self.expired() {
            self.free()?
        } else if self.fingerprint != claim.fingerprint {
            // Before any other answer: a different request must learn nothing about this one.
            Assessment::Decided(Acquisition::Mismatch {
                fingerprint: self.fingerprint,
            })
        } else {
            match self.record_state()? {
                RecordState::Completed(outcome) => {
                    Assessment::Decided(Acquisition::Completed(outcome))
                }
                RecordState::InFlight { remaining } if !remaining.is_zero() => {
                    Assessment::Decided(Acquisition::InFlight {
                        remaining,
                        lease: self.token,
                    })
                }
                // Only the lease that the caller saw lapse: it may have been taken over since.
                RecordState::InFlight { .. } if claim.take_over == Some(self.token) => {
                    self.free()?
                }
                RecordState::InFlight { .. } => Assessment::Decided(Acquisition::Unknown {
                    lease: self.token,
                    mode: self.mode,
                }),
            }
        })
    }

    /// The answer to a claim while another transaction has locked the record: whoever that is executes, or completes.
    /// `None` if the record is the claim's own.
    pub(super) fn behind_a_lock(&self, claim: &Claim) -> Result<Option<Acquisition>, Unrecognised> {
        Ok(match self.assess(claim)? {
            Assessment::Own => None,
            Assessment::Free | Assessment::Decided(Acquisition::Unknown { .. }) => {
                Some(Acquisition::InFlight {
                    remaining: LOCKED,
                    lease: self.token,
                })
            }
            Assessment::Decided(acquisition) => Some(acquisition),
        })
    }

    /// The record may be leased, as the next attempt.
    fn free(&self) -> Result<Assessment, Unrecognised> {
        match self.attempt {
            // No store counts so far.
            u32::MAX => Err(Unrecognised { what: "attempt" }),
            _ => Ok(Assessment::Free),
        }
    }

    /// Why a fenced write changed nothing; `None` if this row would have let it, and the write lost a race.
    pub(super) fn why_unchanged(&self, token: &Token, outcome: Option<&Outcome>) -> Option<Write> {
        if self.token != *token {
            return Some(Write::Fenced);
        }
        if self.state == IN_FLIGHT {
            return None;
        }
        // A repeated completion whose first reply was lost.
        let equal = outcome.is_some_and(|outcome| {
            let (state, response) = columns(outcome);
            self.state == state && self.response.as_deref() == response
        });
        Some(if equal { Write::Applied } else { Write::Fenced })
    }

    /// The record for inspection; `None` if it has expired.
    fn record(&self, details: Details) -> Result<Option<Record>, Unrecognised> {
        if self.expired() {
            return Ok(None);
        }
        let completed_at = details.completed_at.filter(|_| self.completed());
        let record = Record::new(
            self.fingerprint,
            self.attempt,
            self.record_state()?,
            self.expires_in(),
            self.trace_id,
        );
        Ok(Some(
            record
                .mode(self.mode)
                .endpoint(details.endpoint)
                .times(details.created_at, completed_at),
        ))
    }

    fn expires_in(&self) -> Duration {
        let lease_left = if self.completed() { 0 } else { self.lease_left };
        left_of(self.expires_left.max(lease_left))
    }

    /// Whether the record is in flight under this token; the lease may have lapsed.
    fn holds(&self, token: &Token) -> bool {
        self.token == *token && !self.completed()
    }

    fn completed(&self) -> bool {
        self.state != IN_FLIGHT
    }

    fn expired(&self) -> bool {
        self.expires_left <= 0 && (self.completed() || self.lease_left <= 0)
    }

    fn record_state(&self) -> Result<RecordState, Unrecognised> {
        const STATES: [i64; 3] = [IN_FLIGHT, COMPLETED, TOMBSTONE];
        match STATES.iter().position(|state| *state == self.state) {
            Some(0) => Ok(RecordState::InFlight {
                remaining: left_of(self.lease_left),
            }),
            Some(1) => {
                let bytes = self
                    .response
                    .clone()
                    .ok_or(Unrecognised { what: "response" })?;
                let response = StoredResponse::from_bytes(bytes)
                    .map_err(|_| Unrecognised { what: "response" })?;
                Ok(RecordState::Completed(Outcome::Response(response)))
            }
            Some(_) => Ok(RecordState::Completed(Outcome::Tombstone)),
            None => Err(Unrecognised { what: "state" }),
        }
    }
}

impl Details {
    fn read<D: Driver>(row: &D::Row) -> Result<Self, sqlx::Error> {
        let time = |column| {
            let micros = D::maybe_int(row, column)?;
            let micros = micros.and_then(|micros| u64::try_from(micros).ok());
            let time =
                micros.and_then(|micros| UNIX_EPOCH.checked_add(Duration::from_micros(micros)));
            Ok::<_, sqlx::Error>(time)
        };
        Ok(Self {
            endpoint: D::text(row, 9)?,
            created_at: time(10)?,
            completed_at: time(11)?,
        })
    }
}

/// The columns `state` and `response` of an outcome.
pub(super) fn columns(outcome: &Outcome) -> (i64, Option<&[u8]>) {
    match outcome {
        Outcome::Response(response) => (COMPLETED, Some(response.as_bytes())),
        Outcome::Tombstone => (TOMBSTONE, None),
    }
}

/// A duration as a statement's parameter, cut to a hundred years, which every database can add to the present.
pub(super) fn micros(duration: Duration) -> i64 {
    const CENTURY: i64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;
    i64::try_from(duration.as_micros()).map_or(CENTURY, |micros| micros.min(CENTURY))
}

fn left_of(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn exactly<const N: usize, D: Driver>(
    index: usize,
    what: &'static str,
    row: &D::Row,
) -> Result<[u8; N], sqlx::Error> {
    let bytes = D::bytes(row, index)?.unwrap_or_default();
    bytes.try_into().map_err(|_| unrecognised(index, what))
}

fn unrecognised(index: usize, what: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: index.to_string(),
        source: Unrecognised { what }.into(),
    }
}

impl fmt::Display for Unrecognised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unrecognised {} (written by a newer version?)",
            self.what
        )
    }
}

impl Error for Unrecognised {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::Held;

    const MINE: Token = Token::from_bytes([1; 16]);
    const OTHER: Token = Token::from_bytes([2; 16]);
    const SAME: Fingerprint = Fingerprint::from_bytes([3; 32]);
    const ELSE: Fingerprint = Fingerprint::from_bytes([4; 32]);

    fn row(state: i64, token: Token, lease_left: i64, expires_left: i64) -> Row {
        Row {
            state,
            fingerprint: SAME,
            token,
            attempt: 3,
            lease_left,
            expires_left,
            trace_id: None,
            response: None,
            mode: ClaimMode::Plain,
        }
    }

    fn claim(fingerprint: Fingerprint, take_over: Option<Token>) -> Claim {
        let (lease, ttl) = (Duration::from_secs(1), Duration::from_secs(2));
        let claim = Claim::new(StoreKey::from_bytes([0; 32]), fingerprint, MINE, lease, ttl);
        Claim { take_over, ..claim }
    }

    /// The assessment of a claim, in one word.
    fn assessed(row: &Row, claim: &Claim) -> &'static str {
        match row.assess(claim) {
            Ok(Assessment::Own) => "own",
            Ok(Assessment::Free) => "free",
            Ok(Assessment::Decided(Acquisition::Mismatch { .. })) => "mismatch",
            Ok(Assessment::Decided(Acquisition::InFlight { .. })) => "in flight",
            Ok(Assessment::Decided(Acquisition::Unknown { .. })) => "unknown",
            Ok(Assessment::Decided(Acquisition::Completed(_))) => "completed",
            Ok(Assessment::Decided(other)) => panic!("{other:?} is not the decision of a row"),
            Err(_) => "unrecognised",
        }
    }

    #[test]
    fn a_record_is_assessed_as_the_state_machine_says() {
        // State, token, rest of the lease, time until the expiry; then the assessments of a claim with the same
        // fingerprint, of one that also takes over the lease of the record, and of one with another fingerprint.
        let table = [
            (row(0, MINE, 5, 9), ["own", "own", "own"]),
            (row(0, MINE, -5, -1), ["own", "own", "own"]),
            (row(0, OTHER, 5, 9), ["in flight", "in flight", "mismatch"]),
            (row(0, OTHER, 1, 0), ["in flight", "in flight", "mismatch"]),
            (row(0, OTHER, 0, 9), ["unknown", "free", "mismatch"]),
            (row(0, OTHER, -5, 0), ["free", "free", "free"]),
            (row(2, OTHER, 5, 9), ["completed", "completed", "mismatch"]),
            (row(2, MINE, 5, 9), ["completed", "completed", "mismatch"]),
            (row(2, OTHER, 5, 0), ["free", "free", "free"]),
            (row(2, MINE, 5, 0), ["free", "free", "free"]),
            // A completed record without a response, and unknown states.
            (
                row(1, OTHER, 5, 9),
                ["unrecognised", "unrecognised", "mismatch"],
            ),
            (
                row(7, OTHER, 5, 9),
                ["unrecognised", "unrecognised", "mismatch"],
            ),
            (row(-1, OTHER, 5, 0), ["free", "free", "free"]),
        ];
        for (row, expected) in table {
            let named = Some(OTHER);
            let claims = [claim(SAME, None), claim(SAME, named), claim(ELSE, named)];
            // A claim that names another lease takes nothing over.
            let stale = claim(SAME, Some(Token::from_bytes([9; 16])));
            assert_eq!(assessed(&row, &stale), expected[0], "{row:?}");
            assert_eq!(
                claims.map(|claim| assessed(&row, &claim)),
                expected,
                "{row:?}"
            );
        }
    }

    #[test]
    fn a_record_with_the_last_attempt_is_not_leased_again() {
        let last = |state, lease_left, expires_left| Row {
            attempt: u32::MAX,
            ..row(state, OTHER, lease_left, expires_left)
        };
        let take_over = claim(SAME, Some(OTHER));
        assert_eq!(assessed(&last(2, 5, 0), &take_over), "unrecognised");
        assert_eq!(assessed(&last(0, 0, 9), &take_over), "unrecognised");
        assert_eq!(assessed(&last(0, 5, 9), &take_over), "in flight");
        assert_eq!(assessed(&last(2, 5, 9), &take_over), "completed");
    }

    #[test]
    fn a_row_explains_why_a_write_changed_nothing() {
        let tombstone = Some(&Outcome::Tombstone);
        assert_eq!(
            row(0, OTHER, 5, 9).why_unchanged(&MINE, None),
            Some(Write::Fenced)
        );
        assert_eq!(
            row(2, OTHER, 5, 9).why_unchanged(&MINE, tombstone),
            Some(Write::Fenced)
        );
        assert_eq!(
            row(2, MINE, 5, 9).why_unchanged(&MINE, tombstone),
            Some(Write::Applied)
        );
        assert_eq!(
            row(2, MINE, 5, 9).why_unchanged(&MINE, None),
            Some(Write::Fenced)
        );
        assert_eq!(
            row(1, MINE, 5, 9).why_unchanged(&MINE, tombstone),
            Some(Write::Fenced)
        );
        assert_eq!(
            row(0, MINE, 5, 9).why_unchanged(&MINE, tombstone),
            None,
            "the write lost a race"
        );
    }

    #[test]
    fn durations_are_cut_to_what_every_database_can_add() {
        let held = Held {
            ttl: Duration::MAX,
            ..claim(SAME, None).held()
        };
        assert_eq!(micros(held.lease), 1_000_000);
        assert_eq!(
            micros(held.ttl),
            micros(Duration::from_secs(100 * 365 * 24 * 60 * 60))
        );
    }
}
