//! Transactions of handlers in MySQL and MariaDB.
//!
//! The marker is a savepoint at the beginning, which ends with the transaction: by a COMMIT of the handler's, by a statement
//! that commits implicitly, and by a deadlock whose error was swallowed. The session has `autocommit = 0`, so that later
//! statements of such a handler commit nothing.

use std::{sync::atomic::Ordering, time::Duration};

use sqlx::{AssertSqlSafe, Executor as _, MySql, MySqlConnection, Row as _};

use super::{number, seconds};
use crate::store::sql::{
    TableName,
    pool::SessionId,
    transaction::{
        Refusal,
        server::{Largest, Lost, ServerTransactions},
    },
};

impl ServerTransactions for MySql {
    const MARKED: &'static str = "";

    /// What stands in comments is executed by MariaDB only. MySQL ends idle sessions by `wait_timeout`, which holds
    /// between transactions too, and is therefore no shorter than connections stay in their pool.
    fn begin(_: &str, lease: Duration, home: Option<&str>) -> String {
        let lease = seconds(lease);
        let idle = lease.max(90);
        let home = home.map_or_else(String::new, |name| {
            format!("use `{}`; ", name.replace('`', "``"))
        });
        format!(
            "{home}set session autocommit = 0, foreign_key_checks = default, unique_checks = default, innodb_lock_wait_timeout = {lease}, wait_timeout = {idle} \
             /*M!100300 , idle_transaction_timeout = {lease}, max_statement_time = 0 */; \
             start transaction read write; \
             savepoint idempotent_transaction"
        )
    }

    async fn unmark(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
        match connection
            .execute("release savepoint idempotent_transaction")
            .await
        {
            Ok(_) => Ok(true),
            // "SAVEPOINT does not exist".
            Err(error) if number(&error) == Some(1305) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// After a deadlock the savepoint is gone as it is after a COMMIT.
    async fn is_whole(_: &mut MySqlConnection, _: &str) -> Result<bool, sqlx::Error> {
        Ok(true)
    }

    fn refusal(error: &sqlx::Error) -> Refusal {
        match number(error) {
            // A deadlock, a lock that was not to be had, a record that changed since it was read, a commit that a cluster
            // rolled back; the session was idle for too long.
            Some(1213 | 1205 | 1020 | 3101 | 4031) => Refusal::Retry,
            // The server is shutting down, the commit failed half-way, was cancelled or took too long; the connection was
            // killed or broke.
            Some(1053 | 1180 | 1317 | 1969 | 3024 | 1927 | 1152..=1161) | None => {
                Refusal::Unanswered
            }
            Some(_) => Refusal::Final,
        }
    }

    async fn look_around(
        connection: &mut MySqlConnection,
        _: &TableName,
        largest: &Largest,
    ) -> Result<Option<String>, sqlx::Error> {
        let row = connection
            .fetch_one("select database(), cast(@@max_allowed_packet as signed)")
            .await?;
        if let (Some(largest), Ok(packet)) = (largest, u64::try_from(row.try_get::<i64, _>(1)?)) {
            largest.store(packet, Ordering::Relaxed);
        }
        row.try_get(0)
    }

    async fn identify(connection: &mut MySqlConnection) -> Result<SessionId, sqlx::Error> {
        let row = connection
            .fetch_one("select cast(connection_id() as signed)")
            .await?;
        Ok(SessionId {
            number: row.try_get(0)?,
            server_started: server_started(connection).await?,
        })
    }

    async fn end(connection: &mut MySqlConnection, lost: &Lost) -> Result<(), sqlx::Error> {
        let SessionId {
            number: session,
            server_started: started,
        } = lost.id;
        if server_started(connection).await?.abs_diff(started) > ROUNDED {
            // It ended with that server, and its number may be somebody else's.
            return Ok(());
        }
        let state = connection.fetch_optional(AssertSqlSafe(format!(
            "select cast(coalesce(state, '') like 'Waiting for semi-sync ACK%' as signed) \
             from information_schema.processlist where id = {session}"
        )));
        match state.await? {
            None => return Ok(()),
            Some(row) if row.try_get::<i64, _>(0)? != 0 => {
                return Err(sqlx::Error::Protocol(
                    "the transaction waits for its semi-synchronous replica: it is committed and not acknowledged yet".into(),
                ));
            }
            Some(_) => {}
        }
        match connection
            .execute(AssertSqlSafe(format!("kill {session}")))
            .await
        {
            // It has ended meanwhile; or it is another user's, which ours never is.
            Err(error) if matches!(number(&error), Some(1094 | 1095)) => Ok(()),
            ended => ended.map(drop),
        }
    }
}

/// By so many seconds two looks at one start may differ: the server counts whole seconds.
const ROUNDED: u64 = 2;

/// When the server was started, in seconds since 1970, by its own clock.
async fn server_started(connection: &mut MySqlConnection) -> Result<i64, sqlx::Error> {
    let up = connection
        .fetch_one("show global status like 'Uptime'")
        .await?;
    let up: i64 = up.try_get::<String, _>(1)?.parse().unwrap_or_default();
    let now = connection
        .fetch_one("select cast(unix_timestamp() as signed)")
        .await?;
    Ok(now.try_get::<i64, _>(0)? - up)
}
