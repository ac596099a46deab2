//! The operations' statements, each in a transaction of its own, on whichever connection is free.

use std::{borrow::Cow, time::Duration};

use sqlx::{
    PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgDatabaseError, PgRow},
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
    pub(super) connections: &'a Connections<Postgres, Session>,
    pub(super) statements: &'a Statements,
    pub(super) cursor: &'a Cursor,
}

/// How the store's own sessions are set.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) time_out: Duration,
}

impl Greet<Postgres> for Session {
    async fn greet(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(SESSION)
            .persistent(false)
            .bind(millis(self.time_out))
            // Shorter, so that who waits for a lock is told so, and not only that time is up.
            .bind(millis(self.time_out / 2))
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// As the server's settings count. Zero would be no limit, and more than fits an error.
fn millis(limit: Duration) -> String {
    limit.as_millis().clamp(1, i32::MAX as u128).to_string()
}

impl Records for Remote<'_> {
    const NAME: &'static str = NAME;

    async fn claim(&mut self, claim: &Claim) -> Result<Claimed, sqlx::Error> {
        let query = sqlx::query(&self.statements.acquire)
            .bind(&claim.key.as_bytes()[..])
            .bind(&claim.fingerprint.as_bytes()[..])
            .bind(&claim.token.as_bytes()[..])
            .bind(micros(claim.lease))
            .bind(micros(claim.ttl))
            .bind(claim.take_over)
            .bind(claim.trace_id.as_ref().map(|id| &id.as_bytes()[..]));
        let rows = self.fetch_all(query).await?;
        let Some(row) = rows.first() else {
            return Ok(Claimed::Void);
        };
        let seen = Row::read(row)?;
        Ok(if row.try_get(8)? {
            Claimed::Won(seen.attempt)
        } else {
            Claimed::Seen(seen)
        })
    }

    /// The claim leases what is free by itself. If it shows a free record, that changed in the meantime.
    async fn lease(&mut self, _: &Claim, _: &Row) -> Result<u64, sqlx::Error> {
        Ok(0)
    }

    async fn read(&mut self, key: &StoreKey) -> Result<Option<Row>, sqlx::Error> {
        let query = sqlx::query(&self.statements.read).bind(&key.as_bytes()[..]);
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
        let query = sqlx::query(statement)
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

    fn judge(&self, error: &sqlx::Error) -> Verdict {
        judge(error, self.connections.most())
    }
}

impl Expired for Remote<'_> {
    async fn purge_from(&self, from: i64, limit: i64) -> Result<Batch, sqlx::Error> {
        let query = sqlx::query(&self.statements.purge).bind(limit).bind(from);
        let rows = self.fetch_all(query).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Batch {
            purged: row.try_get(0)?,
            until: row.try_get(1)?,
        })
    }

    fn took_too_long(&self, error: &sqlx::Error) -> bool {
        // Cancelled, which is what a statement's time-out does.
        is_late(error) || code(error).as_deref() == Some("57014")
    }
}

impl Remote<'_> {
    /// How many rows the statement changed.
    async fn execute(&self, query: Query<'_, Postgres, PgArguments>) -> Result<u64, sqlx::Error> {
        let asked = async {
            let mut connection = self.connections.lend().await?;
            let done = query.execute(&mut *connection).await;
            connection.settle(done)
        };
        Ok(self.connections.bounded(asked).await?.rows_affected())
    }

    /// All rows, although there is one at most: the answer counts when the commit is through, and not before.
    async fn fetch_all(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let asked = async {
            let mut connection = self.connections.lend().await?;
            let rows = query.fetch_all(&mut *connection).await;
            connection.settle(rows)
        };
        self.connections.bounded(asked).await
    }
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
}

/// What an error means, by its SQLSTATE (PostgreSQL's documentation, appendix A).
fn judge(error: &sqlx::Error, connections: usize) -> Verdict {
    let Some(code) = code(error) else {
        return Verdict::of_the_way(error, connections);
    };
    match &*code {
        // Undone in favour of another transaction.
        "40001" | "40P01" | "23505" => Verdict::RACED,
        // The server goes down, has become a replica, or ended a session that was idle; or a statement that this session
        // had prepared is gone, as after `discard all`. Other connections may know better.
        "57P01" | "57P02" | "57P05" | "25006" | "26000" => Verdict::dead(connections),
        // Its table has changed since.
        "0A000" if replanned(error) => Verdict::dead(connections),
        "53100" => Verdict::lasting(StoreErrorKind::Full),
        // Not XX000, which is a pooler's word for whatever befalls it.
        "XX001" | "XX002" => Verdict::lasting(StoreErrorKind::Corrupt),
        code => Verdict::lasting(match &code[..2.min(code.len())] {
            "54" => StoreErrorKind::TooLarge,
            // Not 28, which a new connection meets while passwords rotate, and which passes.
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
    fn limits_are_some_and_fit() {
        assert_eq!(millis(Duration::ZERO), "1");
        assert_eq!(millis(Duration::from_nanos(1)), "1");
        assert_eq!(millis(Duration::from_secs(2)), "2000");
        assert_eq!(millis(Duration::MAX), i32::MAX.to_string());
    }
}
