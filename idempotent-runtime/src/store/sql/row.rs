//! One record as a database returned it, and every decision about it that is not taken in SQL. Pure.

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;

use super::dialect::Driver;
use crate::{
    fingerprint::Fingerprint,
    response::StoredResponse,
    store::{
        record::{Acquisition, Claim, ClaimMode, Outcome, Record, RecordState, Write},
        token::{Token, TraceId},
    },
};

/// The values of the column `state`.
const IN_FLIGHT: i64 = 0;
const COMPLETED: i64 = 1;
const TOMBSTONE: i64 = 2;

/// The column of a claim's result that says whether the claim acquired the key.
pub(super) const WON: usize = 8;

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
    /// Reads the columns `state, fingerprint, token, attempt, lease_left, expires_left, trace_id, response`.
    pub(super) fn read<D: Driver>(row: &D::Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            state: D::int(row, 0)?,
            fingerprint: Fingerprint::from_bytes(exactly::<_, D>(1, "fingerprint", row)?),
            token: Token::from_bytes(exactly::<_, D>(2, "token", row)?),
            attempt: u32::try_from(D::int(row, 3)?).map_err(|_| unrecognised(3, "attempt"))?,
            lease_left: D::int(row, 4)?,
            expires_left: D::int(row, 5)?,
            // A trace id is for inspection only, so an invalid one is ignored.
            trace_id: D::bytes(row, 6)?
                .and_then(|bytes| bytes.try_into().ok())
                .and_then(TraceId::from_bytes),
            response: D::bytes(row, 7)?.map(Bytes::from),
        })
    }

    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    /// The state machine's decision about a claim. Changes nothing.
    pub(super) fn assess(&self, claim: &Claim) -> Result<Assessment, Unrecognised> {
        Ok(if self.holds(&claim.token) {
            Assessment::Own
        } else if self.expired() {
            Assessment::Free
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
                    Assessment::Free
                }
                RecordState::InFlight { .. } => Assessment::Decided(Acquisition::Unknown {
                    lease: self.token,
                    mode: ClaimMode::Plain,
                }),
            }
        })
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
    pub(super) fn record(&self) -> Result<Option<Record>, Unrecognised> {
        if self.expired() {
            return Ok(None);
        }
        let left = self
            .expires_left
            .max(if self.completed() { 0 } else { self.lease_left });
        Ok(Some(Record::new(
            self.fingerprint,
            self.attempt,
            self.record_state()?,
            left_of(left),
            self.trace_id,
        )))
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
    use crate::{scope::StoreKey, store::record::Held};

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
