//! The statements of the operations, inside the writer's transaction.

use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::SqliteConnection;

use super::{NAME, statements::Statements};
use crate::{
    scope::StoreKey,
    store::{
        error::StoreErrorKind,
        record::{Claim, Held},
        sql::{
            error::Verdict,
            operations::{Change, ClaimResult, Records},
            row::{Row, columns, micros},
        },
    },
};

/// The records while the writer holds the write lock.
pub(super) struct Locked<'a> {
    pub(super) connection: &'a mut SqliteConnection,
    pub(super) statements: &'a Statements,
    pub(super) now: i64,
}

/// The machine's time, uncorrected: all processes that share the file have to agree on it, so none may keep its own. If
/// the clock is set back, leases and records live longer; the tokens still fence.
pub(super) fn now() -> i64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    micros(since_1970)
}

impl Locked<'_> {
    /// When the lease ends, and when the record expires unless it is renewed or completed.
    fn ends(&self, held: &Held) -> (i64, i64) {
        let lease_until = self.now + micros(held.lease);
        (lease_until, lease_until + micros(held.ttl))
    }
}

impl Records for Locked<'_> {
    const NAME: &'static str = NAME;

    async fn claim(&mut self, claim: &Claim) -> Result<ClaimResult, sqlx::Error> {
        let (lease_until, expires_at) = self.ends(&claim.held());
        let attempt: Option<u32> = sqlx::query_scalar(self.statements.claim.clone())
            .bind(&claim.key.as_bytes()[..])
            .bind(&claim.fingerprint.as_bytes()[..])
            .bind(&claim.token.as_bytes()[..])
            .bind(lease_until)
            .bind(expires_at)
            .bind(claim.trace_id.as_ref().map(|id| &id.as_bytes()[..]))
            .bind(self.now)
            .bind(claim.take_over.as_ref().map(|lease| &lease.as_bytes()[..]))
            .fetch_optional(&mut *self.connection)
            .await?;
        if let Some(attempt) = attempt {
            return Ok(ClaimResult::Acquired(attempt));
        }
        let row = self.read(&claim.key).await?;
        // The write lock is held, so that the record is still there.
        row.map(ClaimResult::Found).ok_or(sqlx::Error::RowNotFound)
    }

    /// The claim itself leases a free record.
    async fn lease(&mut self, _: &Claim, _: &Row) -> Result<u64, sqlx::Error> {
        Ok(0)
    }

    async fn read(&mut self, key: &StoreKey) -> Result<Option<Row>, sqlx::Error> {
        let row = sqlx::query(self.statements.read.clone())
            .bind(&key.as_bytes()[..])
            .bind(self.now)
            .fetch_optional(&mut *self.connection)
            .await?;
        row.as_ref().map(Row::read).transpose()
    }

    async fn write(&mut self, change: &Change<'_>) -> Result<u64, sqlx::Error> {
        let statement = match change {
            Change::Renew(_) => &self.statements.renew,
            Change::Complete(..) => &self.statements.complete,
            Change::Release(..) => &self.statements.release,
            Change::Abandon(..) => &self.statements.abandon,
        };
        let query = sqlx::query(statement.clone())
            .bind(&change.key().as_bytes()[..])
            .bind(&change.token().as_bytes()[..]);
        let query = match change {
            Change::Renew(held) => {
                let (lease_until, expires_at) = self.ends(held);
                query.bind(lease_until).bind(expires_at)
            }
            Change::Complete(held, outcome) => {
                let (state, response) = columns(outcome);
                query
                    .bind(state)
                    .bind(response)
                    .bind(self.now + micros(held.ttl))
            }
            Change::Release(..) => query,
            Change::Abandon(..) => query.bind(self.now),
        };
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    async fn purge(&mut self, limit: i64) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(self.statements.purge.clone())
            .bind(self.now)
            .bind(limit)
            .execute(&mut *self.connection)
            .await?;
        Ok(done.rows_affected())
    }

    fn classify(&self, error: &sqlx::Error) -> Verdict {
        classify(error)
    }
}

/// The meaning of an error of SQLite. None is repeated here: the busy time-out has waited already.
pub(super) fn classify(error: &sqlx::Error) -> Verdict {
    // The primary codes of <https://www.sqlite.org/rescode.html>; the extended ones carry them in the low byte.
    const CORRUPT: u32 = 11;
    const FULL: u32 = 13;
    const NOT_A_DATABASE: u32 = 26;
    const TOO_LARGE: u32 = 18;
    const REFUSED: [u32; 5] = [1, 3, 8, 19, 20];
    Verdict::lasting(match primary_code(error) {
        Some(FULL) => StoreErrorKind::Full,
        Some(TOO_LARGE) => StoreErrorKind::TooLarge,
        Some(CORRUPT | NOT_A_DATABASE) => StoreErrorKind::Corrupt,
        Some(code) if REFUSED.contains(&code) => StoreErrorKind::Refused,
        Some(_) => StoreErrorKind::Unavailable,
        None => return Verdict::of_client_error(error, 0),
    })
}

pub(super) fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<u32>().ok().map(|code| code & 0xff)
}
