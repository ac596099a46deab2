//! One record as a database returned it, and every decision that is taken about it outside of SQL. Pure.

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use sqlx::{ColumnIndex, Database, Decode, Type};

use crate::{
    fingerprint::Fingerprint,
    response::StoredResponse,
    store::{
        record::{Acquisition, Claim, Outcome, Record, RecordState, Write},
        token::{Token, TraceId},
    },
};

/// What the column `state` holds.
pub(super) const IN_FLIGHT: i16 = 0;
const COMPLETED: i16 = 1;
const TOMBSTONE: i16 = 2;

/// A record, its times counted from the moment in which the server read it.
#[derive(Debug)]
pub(super) struct Row {
    state: i64,
    fingerprint: Fingerprint,
    token: Token,
    pub(super) attempt: u32,
    /// Microseconds left of the lease; not positive when it has lapsed.
    lease_left: i64,
    /// Microseconds left until the expiry.
    expires_left: i64,
    trace_id: Option<TraceId>,
    response: Option<Bytes>,
}

/// What a claim may do about a record.
#[derive(Debug)]
pub(super) enum Weighed {
    /// Nothing: this is the answer.
    Decided(Acquisition),
    /// The lease is its own, from a first acquire whose reply was lost: renew it.
    Own,
    /// Expired, or lapsed and to be taken over: lease it to this claim.
    Free,
}

/// What is stored is not what this crate stores.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged {
    what: &'static str,
}

impl Row {
    /// Reads the columns `state, fingerprint, token, attempt, lease_left, expires_left, trace_id, response`.
    pub(super) fn read<R>(row: &R) -> Result<Self, sqlx::Error>
    where
        R: sqlx::Row,
        usize: ColumnIndex<R>,
        i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
        Vec<u8>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
        Option<Vec<u8>>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    {
        Ok(Self {
            state: row.try_get(0)?,
            fingerprint: Fingerprint::from_bytes(exactly(1, "fingerprint", row)?),
            token: Token::from_bytes(exactly(2, "token", row)?),
            attempt: u32::try_from(row.try_get::<i64, _>(3)?).map_err(|_| damaged(3, "attempt"))?,
            lease_left: row.try_get(4)?,
            expires_left: row.try_get(5)?,
            trace_id: match row.try_get::<Option<Vec<u8>>, _>(6)? {
                // A trace id is for inspection only: one that is none is not worth an error.
                Some(bytes) => bytes.try_into().ok().and_then(TraceId::from_bytes),
                None => None,
            },
            response: row.try_get::<Option<Vec<u8>>, _>(7)?.map(Bytes::from),
        })
    }

    #[cfg(any(feature = "mysql", feature = "sqlite"))]
    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    /// The state machine's answer to a claim, except that nobody has changed anything yet.
    pub(super) fn weigh(&self, claim: &Claim) -> Result<Weighed, Damaged> {
        Ok(if self.holds(&claim.token) {
            Weighed::Own
        } else if self.expired() {
            Weighed::Free
        } else if self.fingerprint != claim.fingerprint {
            // Before any other answer: a request that asks for something else learns nothing about this one.
            Weighed::Decided(Acquisition::Mismatch)
        } else {
            match self.show()? {
                RecordState::Completed(outcome) => {
                    Weighed::Decided(Acquisition::Completed(outcome))
                }
                RecordState::InFlight { remaining } if !remaining.is_zero() => {
                    Weighed::Decided(Acquisition::InFlight { remaining })
                }
                RecordState::InFlight { .. } if claim.take_over => Weighed::Free,
                RecordState::InFlight { .. } => Weighed::Decided(Acquisition::Unknown),
            }
        })
    }

    /// Why a fenced write changed nothing; `None` if by this row it should have.
    pub(super) fn missed(&self, token: &Token, outcome: Option<&Outcome>) -> Option<Write> {
        if self.token != *token {
            return Some(Write::Fenced);
        }
        if self.state == i64::from(IN_FLIGHT) {
            return None;
        }
        // The reply to the first completion was lost, if this is the second.
        let equal = outcome.is_some_and(|outcome| {
            let (state, response) = columns(outcome);
            self.state == i64::from(state) && self.response.as_deref() == response
        });
        Some(if equal { Write::Applied } else { Write::Fenced })
    }

    /// The record for inspection; `None` when it has expired.
    pub(super) fn record(&self) -> Result<Option<Record>, Damaged> {
        if self.expired() {
            return Ok(None);
        }
        let left = self
            .expires_left
            .max(if self.completed() { 0 } else { self.lease_left });
        Ok(Some(Record::new(
            self.fingerprint,
            self.attempt,
            self.show()?,
            left_of(left),
            self.trace_id,
        )))
    }

    /// Whether this token owns an execution in flight, its lease lapsed or not.
    fn holds(&self, token: &Token) -> bool {
        self.token == *token && !self.completed()
    }

    fn completed(&self) -> bool {
        self.state != i64::from(IN_FLIGHT)
    }

    fn expired(&self) -> bool {
        self.expires_left <= 0 && (self.completed() || self.lease_left <= 0)
    }

    fn show(&self) -> Result<RecordState, Damaged> {
        const STATES: [i64; 3] = [IN_FLIGHT as i64, COMPLETED as i64, TOMBSTONE as i64];
        match STATES.iter().position(|state| *state == self.state) {
            Some(0) => Ok(RecordState::InFlight {
                remaining: left_of(self.lease_left),
            }),
            Some(1) => {
                let bytes = self.response.clone().ok_or(Damaged { what: "response" })?;
                let response =
                    StoredResponse::from_bytes(bytes).map_err(|_| Damaged { what: "response" })?;
                Ok(RecordState::Completed(Outcome::Response(response)))
            }
            Some(_) => Ok(RecordState::Completed(Outcome::Tombstone)),
            None => Err(Damaged { what: "state" }),
        }
    }
}

/// An outcome as it is stored: `state` and `response`.
pub(super) fn columns(outcome: &Outcome) -> (i16, Option<&[u8]>) {
    match outcome {
        Outcome::Response(response) => (COMPLETED, Some(response.as_bytes())),
        Outcome::Tombstone => (TOMBSTONE, None),
    }
}

/// A duration as statements take it. Longer ones than a hundred years are as good as a hundred years, and
/// every database can add that much to today.
pub(super) fn micros(duration: Duration) -> i64 {
    const CENTURY: i64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;
    i64::try_from(duration.as_micros()).map_or(CENTURY, |micros| micros.min(CENTURY))
}

fn left_of(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn exactly<const N: usize, R>(
    index: usize,
    what: &'static str,
    row: &R,
) -> Result<[u8; N], sqlx::Error>
where
    R: sqlx::Row,
    usize: ColumnIndex<R>,
    Vec<u8>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    R::Database: Database,
{
    let bytes: Vec<u8> = row.try_get(index)?;
    bytes.try_into().map_err(|_| damaged(index, what))
}

fn damaged(index: usize, what: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: index.to_string(),
        source: Damaged { what }.into(),
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its {} is none that this version stores", self.what)
    }
}

impl Error for Damaged {}

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

    fn claim(fingerprint: Fingerprint, take_over: bool) -> Claim {
        let (lease, ttl) = (Duration::from_secs(1), Duration::from_secs(2));
        Claim::new(StoreKey::from_bytes([0; 32]), fingerprint, MINE, lease, ttl)
            .take_over(take_over)
    }

    /// What a claim finds, in one word.
    fn found(row: &Row, claim: &Claim) -> &'static str {
        match row.weigh(claim) {
            Ok(Weighed::Own) => "own",
            Ok(Weighed::Free) => "free",
            Ok(Weighed::Decided(Acquisition::Mismatch)) => "mismatch",
            Ok(Weighed::Decided(Acquisition::InFlight { .. })) => "in flight",
            Ok(Weighed::Decided(Acquisition::Unknown)) => "unknown",
            Ok(Weighed::Decided(Acquisition::Completed(_))) => "completed",
            Ok(Weighed::Decided(other)) => panic!("a row decides no {other:?}"),
            Err(_) => "damaged",
        }
    }

    #[test]
    fn a_record_is_weighed_as_the_state_machine_says() {
        // What is left of the lease and until the expiry; then what a claim finds that asks for the same, one that
        // also takes over, and one that asks for something else.
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
            // No response, or no state.
            (row(1, OTHER, 5, 9), ["damaged", "damaged", "mismatch"]),
            (row(7, OTHER, 5, 9), ["damaged", "damaged", "mismatch"]),
            (row(-1, OTHER, 5, 0), ["free", "free", "free"]),
        ];
        for (row, expected) in table {
            let claims = [claim(SAME, false), claim(SAME, true), claim(ELSE, true)];
            assert_eq!(claims.map(|claim| found(&row, &claim)), expected, "{row:?}");
        }
    }

    #[test]
    fn a_write_that_changed_nothing_is_explained() {
        let tombstone = Some(&Outcome::Tombstone);
        assert_eq!(row(0, OTHER, 5, 9).missed(&MINE, None), Some(Write::Fenced));
        assert_eq!(
            row(2, OTHER, 5, 9).missed(&MINE, tombstone),
            Some(Write::Fenced)
        );
        assert_eq!(
            row(2, MINE, 5, 9).missed(&MINE, tombstone),
            Some(Write::Applied)
        );
        assert_eq!(row(2, MINE, 5, 9).missed(&MINE, None), Some(Write::Fenced));
        assert_eq!(
            row(1, MINE, 5, 9).missed(&MINE, tombstone),
            Some(Write::Fenced)
        );
        assert_eq!(
            row(0, MINE, 5, 9).missed(&MINE, tombstone),
            None,
            "it should have applied"
        );
    }

    #[test]
    fn durations_fit_every_database() {
        let held = Held {
            ttl: Duration::MAX,
            ..claim(SAME, false).held()
        };
        assert_eq!(micros(held.lease), 1_000_000);
        assert_eq!(
            micros(held.ttl),
            micros(Duration::from_secs(100 * 365 * 24 * 60 * 60))
        );
    }
}
