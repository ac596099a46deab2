//! The statements of the operations, each in a transaction of its own, on any pooled connection.

use std::{borrow::Cow, time::Duration};

use sqlx::{
    PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgDatabaseError, PgRow, PgSeverity},
    query::Query,
};

use super::{
    NAME,
    statements::{SESSION, Statements},
};
use crate::{
    scope::StoreKey,
    store::{
        error::StoreErrorKind,
        record::Claim,
        sql::{
            error::{Repeat, Verdict},
            operations::{Change, ClaimResult, Records},
            pool::{Connections, SessionSetup, is_time_out},
            purge::{Batch, Cursor, ExpiredRecords, purge},
            row::{Row, columns, micros},
        },
    },
};

/// The records of the database. No connection is held between two statements.
pub(super) struct Remote<'a> {
    pub(super) connections: &'a Connections<Postgres, Session>,
    pub(super) statements: &'a Statements,
    pub(super) cursor: &'a Cursor,
}

/// The settings of the store's own sessions.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) time_out: Duration,
}

impl SessionSetup<Postgres> for Session {
    async fn set_up(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(SESSION)
            .persistent(false)
            .bind(millis(self.time_out))
            // Shorter, so that the error of a wait for a lock names the lock and not only the time-out.
            .bind(millis(self.time_out / 2))
            .execute(connection)
            .await?;
        Ok(())
    }

    fn is_ended_by(error: &sqlx::Error) -> bool {
        let Some(code) = code(error) else {
            return false;
        };
        let severity = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
            .map(PgDatabaseError::severity);
        matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic))
            || matches!(&code[..2.min(code.len())], "08")
            || code.starts_with("57P")
            || matches!(classify(error, 0).repeat, Repeat::Ended { .. })
    }
}

/// In the unit and range of the server's settings, where zero means no limit and too large a value is an error.
fn millis(limit: Duration) -> String {
    limit.as_millis().clamp(1, i32::MAX as u128).to_string()
}

impl Records for Remote<'_> {
    const NAME: &'static str = NAME;

    async fn claim(&mut self, claim: &Claim) -> Result<ClaimResult, sqlx::Error> {
        let query = sqlx::query(self.statements.acquire.clone())
            .bind(&claim.key.as_bytes()[..])
            .bind(&claim.fingerprint.as_bytes()[..])
            .bind(&claim.token.as_bytes()[..])
            .bind(micros(claim.lease))
            .bind(micros(claim.ttl))
            .bind(claim.take_over.as_ref().map(|lease| &lease.as_bytes()[..]))
            .bind(claim.trace_id.as_ref().map(|id| &id.as_bytes()[..]));
        let rows = self.fetch_all(query).await?;
        let Some(row) = rows.first() else {
            return Ok(ClaimResult::Raced);
        };
        let found = Row::read(row)?;
        Ok(if row.try_get(8)? {
            ClaimResult::Acquired(found.attempt)
        } else {
            ClaimResult::Found(found)
        })
    }

    /// The claim itself leases a free record. If it returns a free one, the record has changed meanwhile.
    async fn lease(&mut self, _: &Claim, _: &Row) -> Result<u64, sqlx::Error> {
        Ok(0)
    }

    async fn read(&mut self, key: &StoreKey) -> Result<Option<Row>, sqlx::Error> {
        let query = sqlx::query(self.statements.read.clone()).bind(&key.as_bytes()[..]);
        let rows = self.fetch_all(query).await?;
        rows.first().map(Row::read).transpose()
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
            Change::Renew(held) => query.bind(micros(held.lease)).bind(micros(held.ttl)),
            Change::Complete(held, outcome) => {
                let (state, response) = columns(outcome);
                query.bind(state).bind(response).bind(micros(held.ttl))
            }
            Change::Release(..) | Change::Abandon(..) => query,
        };
        self.execute(query).await
    }

    async fn purge(&mut self, limit: i64) -> Result<u64, sqlx::Error> {
        purge(self.cursor, self, limit).await
    }

    fn classify(&self, error: &sqlx::Error) -> Verdict {
        classify(error, self.connections.max())
    }
}

impl ExpiredRecords for Remote<'_> {
    async fn purge_from(&self, from: i64, limit: i64) -> Result<Batch, sqlx::Error> {
        let query = sqlx::query(self.statements.purge.clone())
            .bind(limit)
            .bind(from);
        let rows = self.fetch_all(query).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Batch {
            purged: row.try_get(0)?,
            until: row.try_get(1)?,
        })
    }

    fn took_too_long(&self, error: &sqlx::Error) -> bool {
        // `query_canceled`, which is what a statement time-out raises.
        is_time_out(error) || code(error).as_deref() == Some("57014")
    }
}

impl Remote<'_> {
    /// Returns how many rows the statement changed.
    async fn execute(&self, query: Query<'_, Postgres, PgArguments>) -> Result<u64, sqlx::Error> {
        let asked = async {
            let mut connection = self.connections.acquire().await?;
            let done = query.execute(&mut *connection).await;
            connection.release(done)
        };
        Ok(self.connections.bounded(asked).await?.rows_affected())
    }

    /// Fetches all rows, although there is one at most: the answer counts only after the commit has returned.
    async fn fetch_all(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let asked = async {
            let mut connection = self.connections.acquire().await?;
            let rows = query.fetch_all(&mut *connection).await;
            connection.release(rows)
        };
        self.connections.bounded(asked).await
    }
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
}

/// The meaning of an error by its SQLSTATE (PostgreSQL's documentation, appendix A).
fn classify(error: &sqlx::Error, connections: usize) -> Verdict {
    let Some(code) = code(error) else {
        return Verdict::of_client_error(error, connections);
    };
    match &*code {
        // Rolled back in favour of another transaction.
        "40001" | "40P01" | "23505" => Verdict::RACED,
        // The server is shutting down, has become a replica, or ended an idle session; or a prepared statement of this
        // session is gone, as after `discard all`. Another connection may work.
        "57P01" | "57P02" | "57P05" | "25006" | "26000" => Verdict::ended(connections),
        // The table has changed since the statement was prepared.
        "0A000" if replanned(error) => Verdict::ended(connections),
        "53100" => Verdict::lasting(StoreErrorKind::Full),
        // Not XX000, which poolers use for errors of every kind.
        "XX001" | "XX002" => Verdict::lasting(StoreErrorKind::Corrupt),
        code => Verdict::lasting(match &code[..2.min(code.len())] {
            "54" => StoreErrorKind::TooLarge,
            // Not 28, which a new connection gets while passwords rotate, and which passes.
            "0A" | "22" | "23" | "3D" | "3F" | "42" => StoreErrorKind::Refused,
            _ => StoreErrorKind::Unavailable,
        }),
    }
}

/// Whether a prepared statement no longer fits its table: "cached plan must not change result type", in any language.
fn replanned(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_some_and(|error| error.routine() == Some("RevalidateCachedQuery"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_never_unlimited_and_in_range() {
        assert_eq!(millis(Duration::ZERO), "1");
        assert_eq!(millis(Duration::from_nanos(1)), "1");
        assert_eq!(millis(Duration::from_secs(2)), "2000");
        assert_eq!(millis(Duration::MAX), i32::MAX.to_string());
    }
}
