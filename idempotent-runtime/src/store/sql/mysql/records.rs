//! The operations' statements, each committed by itself, on whichever connection is free.

use std::time::Duration;

use sqlx::{
    Executor as _, MySql, MySqlConnection, Row as _,
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
            error::Verdict,
            operations::{Change, Claimed, Records},
            pool::{Connections, Greet, is_late},
            purge::{Batch, Cursor, Expired, purge},
            row::{Row, columns, micros},
        },
    },
};

/// The records behind a pool. No connection is held between two statements.
pub(super) struct Remote<'a> {
    pub(super) connections: &'a Connections<MySql, Session>,
    pub(super) statements: &'a Statements,
    pub(super) cursor: &'a Cursor,
}

/// How the store's own sessions are set.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) time_out: Duration,
}

impl Greet<MySql> for Session {
    async fn greet(&self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        let settings = session(seconds(self.time_out));
        connection.execute(&*settings).await?;
        Ok(())
    }
}

/// As the server's settings count. Zero would be no limit, and none of them takes more than a year.
fn seconds(limit: Duration) -> u64 {
    limit.as_secs().clamp(1, 365 * 24 * 60 * 60)
}

impl Records for Remote<'_> {
    const NAME: &'static str = NAME;

    async fn claim(&mut self, claim: &Claim) -> Result<Claimed, sqlx::Error> {
        let sent = self.statements.claim(claim);
        let asked = async {
            let mut connection = self.connections.lend().await?;
            let rows: Result<Vec<MySqlRow>, _> = connection.fetch_all(&*sent).await;
            connection.settle(rows)
        };
        let rows = self.connections.bounded(asked).await?;
        let Some(row) = rows.first() else {
            return Ok(Claimed::Void);
        };
        let seen = Row::read(row)?;
        let inserted = row.try_get::<i64, _>(8)? == 1;
        Ok(if inserted && *seen.token() == claim.token {
            Claimed::Won(seen.attempt)
        } else {
            Claimed::Seen(seen)
        })
    }

    async fn lease(&mut self, claim: &Claim, seen: &Row) -> Result<u64, sqlx::Error> {
        let lease = micros(claim.lease);
        let query = sqlx::query(&self.statements.lease)
            .bind(&claim.fingerprint.as_bytes()[..])
            .bind(&claim.token.as_bytes()[..])
            .bind(lease)
            .bind(lease + micros(claim.ttl))
            .bind(claim.trace_id.as_ref().map(|id| &id.as_bytes()[..]))
            .bind(&claim.key.as_bytes()[..])
            .bind(&seen.token().as_bytes()[..])
            .bind(claim.take_over)
            .bind(&claim.fingerprint.as_bytes()[..]);
        self.execute(query).await
    }

    async fn read(&mut self, key: &StoreKey) -> Result<Option<Row>, sqlx::Error> {
        let query = sqlx::query(&self.statements.read).bind(&key.as_bytes()[..]);
        let rows = self.fetch_all(query).await?;
        rows.first().map(Row::read).transpose()
    }

    async fn write(&mut self, change: &Change<'_>) -> Result<u64, sqlx::Error> {
        let query = match change {
            Change::Renew(held) => sqlx::query(&self.statements.renew)
                .bind(micros(held.lease))
                .bind(micros(held.lease) + micros(held.ttl)),
            Change::Complete(held, outcome) => {
                let (state, response) = columns(outcome);
                sqlx::query(&self.statements.complete)
                    .bind(state)
                    .bind(response)
                    .bind(micros(held.ttl))
            }
            Change::Release(..) => sqlx::query(&self.statements.release),
            Change::Abandon(..) => sqlx::query(&self.statements.abandon),
        };
        let query = query
            .bind(&change.key().as_bytes()[..])
            .bind(&change.token().as_bytes()[..]);
        // sqlx counts rows that match, also when they were as they are to be.
        self.execute(query).await
    }

    async fn purge(&mut self, limit: i64) -> Result<u64, sqlx::Error> {
        purge(self.cursor, self, limit).await
    }

    fn judge(&self, error: &sqlx::Error) -> Verdict {
        judge(error, self.connections.most())
    }
}

impl Expired for Remote<'_> {
    async fn purge_from(&self, from: i64, limit: i64) -> Result<Batch, sqlx::Error> {
        // The deletion itself cannot say where it ended.
        let query = sqlx::query(&self.statements.batch).bind(from).bind(limit);
        let rows = self.fetch_all(query).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let (last, present): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
        let query = sqlx::query(&self.statements.purge).bind(from).bind(limit);
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
        is_late(error) || matches!(number(error), Some(1969 | 3024))
    }
}

impl Remote<'_> {
    /// The largest packet that the server takes, in bytes.
    pub(super) async fn packet(&self) -> Result<u64, sqlx::Error> {
        let query = sqlx::query(&self.statements.packet).persistent(false);
        let rows = self.fetch_all(query).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
    }

    /// How many rows the statement changed.
    async fn execute(&self, query: Query<'_, MySql, MySqlArguments>) -> Result<u64, sqlx::Error> {
        let asked = async {
            let mut connection = self.connections.lend().await?;
            let done = query.execute(&mut *connection).await;
            connection.settle(done)
        };
        Ok(self.connections.bounded(asked).await?.rows_affected())
    }

    async fn fetch_all(
        &self,
        query: Query<'_, MySql, MySqlArguments>,
    ) -> Result<Vec<MySqlRow>, sqlx::Error> {
        let asked = async {
            let mut connection = self.connections.lend().await?;
            let rows = query.fetch_all(&mut *connection).await;
            connection.settle(rows)
        };
        self.connections.bounded(asked).await
    }
}

/// What an error means, by its number. MySQL and MariaDB share those that matter here.
fn judge(error: &sqlx::Error, connections: usize) -> Verdict {
    match number(error) {
        None => Verdict::of_the_way(error, connections),
        // Deadlock; a record that changed since it was read; a commit that a cluster undid.
        Some(1213 | 1020 | 3101) => Verdict::RACED,
        // The server goes down, has become a replica, is a node of a cluster that is not ready, or ended a session that
        // was idle; or a statement that this session had prepared is gone, as after a change of servers behind a proxy.
        // Other connections may know better.
        Some(1053 | 1927 | 1290 | 1836 | 1047 | 4031 | 1243 | 1615) => Verdict::dead(connections),
        // The disk, or the table, is full.
        Some(1021 | 1114) => Verdict::lasting(StoreErrorKind::Full),
        Some(1194 | 1195 | 1712) => Verdict::lasting(StoreErrorKind::Corrupt),
        // Too large a packet, a value that does not fit.
        Some(1153 | 1406) => Verdict::lasting(StoreErrorKind::TooLarge),
        // No such database, table or column; a binary log that takes no such writes. (Not 1044 and 1045, which a new connection meets while passwords rotate,
        // and which pass.)
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
    fn limits_are_some_and_fit() {
        assert_eq!(seconds(Duration::ZERO), 1);
        assert_eq!(seconds(Duration::from_millis(999)), 1);
        assert_eq!(seconds(Duration::from_secs(2)), 2);
        assert_eq!(seconds(Duration::MAX), 31_536_000);
    }
}
