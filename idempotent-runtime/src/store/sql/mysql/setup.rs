//! The set-up before the first operation: connecting, probing the server, creating the table.

use sqlx::{Executor as _, MySql, MySqlConnection, Row as _, mysql::MySqlConnectOptions};

use super::{
    NAME,
    records::{Session, number},
    statements::{Statements, VERSION},
};
use crate::store::sql::{
    ConnectError, TableName,
    error::{check_not_vanished, check_version, parse},
    pool::Connections,
    setup::{Setup, pending},
};

/// The size of a statement besides the body of a response: its headers, and the rest of the row.
const OVERHEAD: u64 = 64 << 10;

const SETUP: Setup = Setup {
    store: NAME,
    is_denial,
};

/// A wrong password or an unknown user; an unknown database, or one that the user may not use.
fn is_denial(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1044 | 1045 | 1049 | 1130 | 1698))
}

pub(super) fn options(url: &str) -> Result<MySqlConnectOptions, ConnectError> {
    let expected = "mysql://user:password@host:port/database";
    // The scheme of MariaDB's own clients.
    let url = url
        .strip_prefix("mariadb:")
        .map_or_else(|| url.to_owned(), |rest| format!("mysql:{rest}"));
    let options: MySqlConnectOptions = parse(&url, &["mysql"], expected)?;
    if options.get_database().is_none_or(str::is_empty) {
        let source = sqlx::Error::Configuration("it names no database".into());
        return Err(ConnectError::Url { expected, source });
    }
    Ok(sqlx::ConnectOptions::disable_statement_logging(options))
}

/// Creates the table or brings it up to date.
pub(super) async fn migrate(
    connections: &Connections<MySql, Session>,
    statements: &Statements,
    table: &TableName,
) -> Result<(), ConnectError> {
    let mut connection = connections
        .acquire()
        .await
        .map_err(|error| SETUP.unreachable(error))?;
    let done = migrate_on(&mut connection, statements, table).await;
    // Closed instead of released: its session has no statement time-out any more.
    drop(connection);
    check_not_vanished(table, done.map_err(SETUP.refused("create the table"))?)
}

/// Migrates under a lock: concurrent migrations wait for each other. A failure in the middle leaves a table of an
/// earlier version, and the lock until the end of the session.
async fn migrate_on(
    connection: &mut MySqlConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<Option<i64>, sqlx::Error> {
    // The time-out of operations does not suit a migration. (Only MariaDB has one for statements.)
    connection
        .execute("set session autocommit = 1 /*M!100100 , max_statement_time = 0 */")
        .await?;
    // Lock names have at most 64 characters and are shared by the whole server.
    let lock = format!("idempotent:{}", table.name());
    let locked: i64 = sqlx::query_scalar(statements.lock.clone())
        .bind(&lock)
        .fetch_one(&mut *connection)
        .await?;
    if locked != 1 {
        return Err(sqlx::Error::Protocol(
            "another process has held the migration lock for ten seconds: try again when it has finished".into(),
        ));
    }
    let migrated = migrate_locked(connection, statements, table).await;
    sqlx::query(statements.unlock.clone())
        .bind(&lock)
        .fetch_one(&mut *connection)
        .await?;
    migrated
}

/// Returns the version of a table that was created before and is gone; then nothing is created.
async fn migrate_locked(
    connection: &mut MySqlConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<Option<i64>, sqlx::Error> {
    connection.execute(statements.versions.clone()).await?;
    let found: i64 = sqlx::query_scalar(statements.version.clone())
        .fetch_one(&mut *connection)
        .await?;
    if found != 0 && !exists(connection, statements, table, "").await? {
        return Ok(Some(found));
    }
    for (version, migration) in pending(&statements.migrations, found) {
        connection.execute(migration.clone()).await?;
        sqlx::query(statements.migrated.clone())
            .bind(version)
            .execute(&mut *connection)
            .await?;
    }
    Ok(None)
}

/// What the server must provide.
pub(super) struct Requirements {
    pub(super) largest_response: u64,
    pub(super) durable: bool,
}

/// Checks that the server keeps acknowledged writes and accepts large enough packets, and that the table has this
/// crate's version. Returns the largest packet that the server accepts, in bytes.
pub(super) async fn check(
    connections: &Connections<MySql, Session>,
    statements: &Statements,
    table: &TableName,
    requirements: &Requirements,
) -> Result<u64, ConnectError> {
    SETUP
        .bounded(probe(connections, statements, table, requirements))
        .await
}

async fn probe(
    connections: &Connections<MySql, Session>,
    statements: &Statements,
    table: &TableName,
    requirements: &Requirements,
) -> Result<u64, ConnectError> {
    let mut connection = connections
        .acquire()
        .await
        .map_err(|error| SETUP.unreachable(error))?;
    let server = sqlx::query(statements.server.clone())
        .fetch_one(&mut *connection)
        .await;
    let packet = check_server(
        &server.map_err(SETUP.refused("report its settings"))?,
        requirements,
    )?;
    let writes = sqlx::query_as(statements.binary_log.clone())
        .fetch_all(&mut *connection)
        .await;
    check_binary_log(&writes.map_err(SETUP.refused("report its settings"))?)?;
    let found = version(&mut connection, statements, table).await;
    let found = connection
        .release(found)
        .map_err(SETUP.refused("report the table's version"))?;
    check_version(table, found, VERSION)?;
    Ok(packet)
}

fn check_server(
    server: &sqlx::mysql::MySqlRow,
    requirements: &Requirements,
) -> Result<u64, ConnectError> {
    let is = |index: usize| {
        server
            .try_get::<i64, _>(index)
            .map_err(SETUP.refused("report its settings"))
    };
    let not = |reason| Err(ConnectError::NotDurable { reason });
    let (packet, flush, read_only, autocommit) = (is(0)?, is(1)?, is(2)?, is(3)?);
    let (bytes, needed) = (
        u64::try_from(packet).unwrap_or(0),
        requirements.largest_response + OVERHEAD,
    );
    if bytes < needed {
        return Err(ConnectError::PacketTooSmall { bytes, needed });
    }
    if read_only != 0 {
        return not(
            "the MySQL server is read-only, as a replica is: give the address of its primary",
        );
    }
    // MariaDB's value 3 flushes more than 1 does, and does not depend on the binary log.
    if is(4)? != 0 && flush != 3 && requirements.durable {
        return not(
            "the MySQL server has a binary log and sync_binlog is not 1, so that a crash loses acknowledged writes: \
             set sync_binlog to 1, or choose `accept_weaker_durability()`",
        );
    }
    if !matches!(flush, 1 | 3) && requirements.durable {
        return not(
            "innodb_flush_log_at_trx_commit of the MySQL server is not 1, so that a crash loses acknowledged writes: \
             set it to 1, or choose `accept_weaker_durability()`",
        );
    }
    if is(5)? == 0 && requirements.durable {
        tracing::warn!(
            "the MySQL server has no binary log: it shows commits a moment before they are on disk, so that a crash \
             may take a replay back. Set log_bin and sync_binlog = 1, or choose `accept_weaker_durability()`"
        );
    }
    if autocommit != 1 {
        return not(
            "the pool's sessions have autocommit = 0, so that no write would be committed: set it to 1",
        );
    }
    Ok(bytes)
}

/// Rows cannot be changed under `read committed` if the format of the binary log is `STATEMENT`.
fn check_binary_log(variables: &[(String, String)]) -> Result<(), ConnectError> {
    let statements = |value: &str| value == "STATEMENT";
    let reads_committed = |value: &str| matches!(value, "READ-COMMITTED" | "READ-UNCOMMITTED");
    if variables.iter().any(|(_, value)| statements(value))
        && variables.iter().any(|(_, value)| reads_committed(value))
    {
        return Err(ConnectError::NotDurable {
            reason: "the MySQL server has binlog_format = STATEMENT, which does not allow writes under read committed: \
                     set it to ROW or MIXED",
        });
    }
    Ok(())
}

/// The table's version; 0 if the table or that of its versions does not exist.
async fn version(
    connection: &mut MySqlConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<i64, sqlx::Error> {
    // Either may be gone, dropped by hand or missing in a backup.
    for suffix in ["_versions", ""] {
        if !exists(connection, statements, table, suffix).await? {
            return Ok(0);
        }
    }
    sqlx::query_scalar(statements.version.clone())
        .fetch_one(connection)
        .await
}

async fn exists(
    connection: &mut MySqlConnection,
    statements: &Statements,
    table: &TableName,
    suffix: &str,
) -> Result<bool, sqlx::Error> {
    let found: i64 = sqlx::query_scalar(statements.exists.clone())
        .bind(table.schema())
        .bind(format!("{}{suffix}", table.name()))
        .fetch_one(connection)
        .await?;
    Ok(found > 0)
}
