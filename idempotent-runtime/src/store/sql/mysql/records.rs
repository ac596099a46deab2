//! The statements of the operations, each committed by itself, on any pooled connection.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Executor as _, MySql, MySqlConnection, Row as _,
    mysql::{MySqlArguments, MySqlDatabaseError, MySqlRow},
    query::Query,
};

use super::{
    NAME,
    statements::{Statements, session},
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
    pub(super) connections: &'a Connections<MySql, Session>,
    pub(super) statements: &'a Statements,
    pub(super) cursor: &'a Cursor,
}

/// The settings of the store's own sessions.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) time_out: Duration,
}

impl SessionSetup<MySql> for Session {
    async fn set_up(&self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        let settings = session(seconds(self.time_out));
        // A number is all that was inserted.
        connection.execute(AssertSqlSafe(settings)).await?;
        Ok(())
    }

    fn is_ended_by(error: &sqlx::Error) -> bool {
        // Also the errors of the connection itself, after which the server closes it.
        matches!(number(error), Some(1152..=1161))
            || matches!(classify(error, 0).repeat, Repeat::Ended { .. })
    }
}

/// In the unit and range of the server's settings, where zero means no limit and a year is the maximum.
fn seconds(limit: Duration) -> u64 {
    limit.as_secs().clamp(1, 365 * 24 * 60 * 60)
}

impl Records for Remote<'_> {
    const NAME: &'static str = NAME;

    async fn claim(&mut self, claim: &Claim) -> Result<ClaimResult, sqlx::Error> {
        let sent = AssertSqlSafe(self.statements.claim(claim));
        let asked = async {
            let mut connection = self.connections.acquire().await?;
            let rows: Result<Vec<MySqlRow>, _> = connection.fetch_all(sent).await;
            connection.release(rows)
        };
        let rows = self.connections.bounded(asked).await?;
        let Some(row) = rows.first() else {
            return Ok(ClaimResult::Raced);
        };
        let found = Row::read(row)?;
        let inserted = row.try_get::<i64, _>(8)? == 1;
        Ok(if inserted && *found.token() == claim.token {
            ClaimResult::Acquired(found.attempt)
        } else {
            ClaimResult::Found(found)
        })
    }

    async fn lease(&mut self, claim: &Claim, found: &Row) -> Result<u64, sqlx::Error> {
        let lease = micros(claim.lease);
        let query = sqlx::query(self.statements.lease.clone())
            .bind(&claim.fingerprint.as_bytes()[..])
            .bind(&claim.token.as_bytes()[..])
            .bind(lease)
            .bind(lease + micros(claim.ttl))
            .bind(claim.trace_id.as_ref().map(|id| &id.as_bytes()[..]))
            .bind(&claim.key.as_bytes()[..])
            .bind(&found.token().as_bytes()[..])
            .bind(claim.take_over.as_ref().map(|lease| &lease.as_bytes()[..]))
            .bind(&claim.fingerprint.as_bytes()[..]);
        self.execute(query).await
    }

    async fn read(&mut self, key: &StoreKey) -> Result<Option<Row>, sqlx::Error> {
        let query = sqlx::query(self.statements.read.clone()).bind(&key.as_bytes()[..]);
        let rows = self.fetch_all(query).await?;
        rows.first().map(Row::read).transpose()
    }

    async fn write(&mut self, change: &Change<'_>) -> Result<u64, sqlx::Error> {
        let query = match change {
            Change::Renew(held) => sqlx::query(self.statements.renew.clone())
                .bind(micros(held.lease))
                .bind(micros(held.lease) + micros(held.ttl)),
            Change::Complete(held, outcome) => {
                let (state, response) = columns(outcome);
                sqlx::query(self.statements.complete.clone())
                    .bind(state)
                    .bind(response)
                    .bind(micros(held.ttl))
            }
            Change::Release(..) => sqlx::query(self.statements.release.clone()),
            Change::Abandon(..) => sqlx::query(self.statements.abandon.clone()),
        };
        let query = query
            .bind(&change.key().as_bytes()[..])
            .bind(&change.token().as_bytes()[..]);
        // sqlx counts the rows that match, including those that already had the new values.
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
        // A `delete` cannot return the expiry of its last row.
        let query = sqlx::query(self.statements.batch.clone())
            .bind(from)
            .bind(limit);
        let rows = self.fetch_all(query).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let (last, present): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
        let query = sqlx::query(self.statements.purge.clone())
            .bind(from)
            .bind(limit);
        let purged = self.execute(query).await?;
        let purged = i64::try_from(purged).unwrap_or(i64::MAX);
        let full = last.filter(|_| purged >= limit);
        Ok(Batch {
            purged,
            until: full.unwrap_or(present),
        })
    }

    fn took_too_long(&self, error: &sqlx::Error) -> bool {
        // MariaDB's `max_statement_time`; MySQL's `max_execution_time`, which an application's pool may set.
        is_time_out(error) || matches!(number(error), Some(1969 | 3024))
    }
}

impl Remote<'_> {
    /// The largest packet that the server accepts, in bytes.
    pub(super) async fn packet(&self) -> Result<u64, sqlx::Error> {
        let query = sqlx::query(self.statements.packet.clone()).persistent(false);
        let rows = self.fetch_all(query).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
    }

    /// Returns how many rows the statement changed.
    async fn execute(&self, query: Query<'_, MySql, MySqlArguments>) -> Result<u64, sqlx::Error> {
        let asked = async {
            let mut connection = self.connections.acquire().await?;
            let done = query.execute(&mut *connection).await;
            connection.release(done)
        };
        Ok(self.connections.bounded(asked).await?.rows_affected())
    }

    async fn fetch_all(
        &self,
        query: Query<'_, MySql, MySqlArguments>,
    ) -> Result<Vec<MySqlRow>, sqlx::Error> {
        let asked = async {
            let mut connection = self.connections.acquire().await?;
            let rows = query.fetch_all(&mut *connection).await;
            connection.release(rows)
        };
        self.connections.bounded(asked).await
    }
}

/// The meaning of an error by its number. MySQL and MariaDB share the numbers that matter here.
fn classify(error: &sqlx::Error, connections: usize) -> Verdict {
    match number(error) {
        None => Verdict::of_client_error(error, connections),
        // A deadlock; a record that changed since it was read; a commit that a cluster rolled back.
        Some(1213 | 1020 | 3101) => Verdict::RACED,
        // The server is shutting down, has become a replica, is a cluster node that is not ready, or ended an idle
        // session; or a prepared statement of this session is gone, as after a change of servers behind a proxy.
        // Another connection may work.
        Some(1053 | 1927 | 1290 | 1836 | 1047 | 4031 | 1243 | 1615) => Verdict::ended(connections),
        // The disk or the table is full.
        Some(1021 | 1114) => Verdict::lasting(StoreErrorKind::Full),
        Some(1194 | 1195 | 1712) => Verdict::lasting(StoreErrorKind::Corrupt),
        // The packet is too large; a value does not fit its column.
        Some(1153 | 1406) => Verdict::lasting(StoreErrorKind::TooLarge),
        // An unknown database, table or column; a missing permission; a binary log that does not accept such writes.
        // Not 1044 and 1045, which a new connection gets while passwords rotate, and which pass.
        Some(1046 | 1049 | 1054 | 1064 | 1142..=1143 | 1146 | 1227 | 1264 | 1665) => {
            Verdict::lasting(StoreErrorKind::Refused)
        }
        Some(_) => Verdict::lasting(StoreErrorKind::Unavailable),
    }
}

pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_never_unlimited_and_in_range() {
        assert_eq!(seconds(Duration::ZERO), 1);
        assert_eq!(seconds(Duration::from_millis(999)), 1);
        assert_eq!(seconds(Duration::from_secs(2)), 2);
        assert_eq!(seconds(Duration::MAX), 31_536_000);
    }
}
