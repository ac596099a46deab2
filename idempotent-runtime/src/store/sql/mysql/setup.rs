//! What happens before the first operation: connecting, looking at the server, making the table.

use sqlx::{Executor as _, MySql, MySqlConnection, Row as _, mysql::MySqlConnectOptions};

use super::{
    NAME,
    records::{Session, number},
    statements::{Statements, VERSION},
};
use crate::store::sql::{
    ConnectError, TableName,
    error::{known, parse, still_there},
    pool::Connections,
    setup::{Setup, missing},
};

/// What a statement needs besides the body of a response: its headers, and the rest of the row.
const OVERHEAD: u64 = 64 << 10;

const SETUP: Setup = Setup {
    store: NAME,
    denies,
};

/// Wrong password or no such user; no such database, or none that the user may use.
fn denies(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1044 | 1045 | 1049 | 1130 | 1698))
}

pub(super) fn options(url: &str) -> Result<MySqlConnectOptions, ConnectError> {
    let expected = "mysql://user:password@host:port/database";
    // What MariaDB's own clients say.
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

/// Makes the table or brings it up to date.
pub(super) async fn migrate(
    connections: &Connections<MySql, Session>,
    statements: &Statements,
    table: &TableName,
) -> Result<(), ConnectError> {
    let mut connection = connections
        .lend()
        .await
        .map_err(|error| SETUP.unreachable(error))?;
    let done = migrate_on(&mut connection, statements, table).await;
    // Closed, not given back: it has no limit on statements any more.
    drop(connection);
    still_there(table, done.map_err(SETUP.refused("make the table"))?)
}

/// After whoever came first. A failure in the middle leaves a table of an earlier version, and the lock to the end
/// of the session.
async fn migrate_on(
    connection: &mut MySqlConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<Option<i64>, sqlx::Error> {
    // The limit of the operations is none for a migration. (A server that is no MariaDB has no such limit to lift.)
    connection
        .execute("set session autocommit = 1 /*M!100100 , max_statement_time = 0 */")
        .await?;
    // Names of locks have at most 64 characters, and are the whole server's.
    let lock = format!("idempotent:{}", table.name());
    let locked: i64 = sqlx::query_scalar(&statements.lock)
        .bind(&lock)
        .fetch_one(&mut *connection)
        .await?;
    if locked != 1 {
        return Err(sqlx::Error::Protocol(
            "another process has been migrating for ten seconds".into(),
        ));
    }
    let migrated = migrate_locked(connection, statements, table).await;
    sqlx::query(&statements.unlock)
        .bind(&lock)
        .fetch_one(&mut *connection)
        .await?;
    migrated
}

/// Gives the version of a table that was made before and is gone: then nothing is made.
async fn migrate_locked(
    connection: &mut MySqlConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<Option<i64>, sqlx::Error> {
    connection.execute(&*statements.versions).await?;
    let found: i64 = sqlx::query_scalar(&statements.version)
        .fetch_one(&mut *connection)
        .await?;
    if found != 0 && !exists(connection, statements, table, "").await? {
        return Ok(Some(found));
    }
    for (version, migration) in missing(&statements.migrations, found) {
        connection.execute(migration).await?;
        sqlx::query(&statements.migrated)
            .bind(version)
            .execute(&mut *connection)
            .await?;
    }
    Ok(None)
}

/// What the server must be.
pub(super) struct Demands {
    pub(super) largest_response: u64,
    pub(super) durable: bool,
}

/// That the server keeps what it acknowledges and takes what it will be sent, and that the table is the one this
/// version knows. Gives the largest packet that the server takes, in bytes.
pub(super) async fn check(
    connections: &Connections<MySql, Session>,
    statements: &Statements,
    table: &TableName,
    demands: &Demands,
) -> Result<u64, ConnectError> {
    SETUP
        .look(look(connections, statements, table, demands))
        .await
}

async fn look(
    connections: &Connections<MySql, Session>,
    statements: &Statements,
    table: &TableName,
    demands: &Demands,
) -> Result<u64, ConnectError> {
    let mut connection = connections
        .lend()
        .await
        .map_err(|error| SETUP.unreachable(error))?;
    let server = sqlx::query(&statements.server)
        .fetch_one(&mut *connection)
        .await;
    let packet = look_at(&server.map_err(SETUP.refused("say what it is"))?, demands)?;
    let writes = sqlx::query_as(&statements.binary_log)
        .fetch_all(&mut *connection)
        .await;
    look_at_binary_log(&writes.map_err(SETUP.refused("say what it is"))?)?;
    let found = version(&mut connection, statements, table).await;
    let found = connection
        .settle(found)
        .map_err(SETUP.refused("say the table's version"))?;
    known(table, found, VERSION)?;
    Ok(packet)
}

fn look_at(server: &sqlx::mysql::MySqlRow, demands: &Demands) -> Result<u64, ConnectError> {
    let is = |index: usize| {
        server
            .try_get::<i64, _>(index)
            .map_err(SETUP.refused("say what it is"))
    };
    let not = |reason| Err(ConnectError::NotDurable { reason });
    let (packet, flush, read_only, autocommit) = (is(0)?, is(1)?, is(2)?, is(3)?);
    let (bytes, needed) = (
        u64::try_from(packet).unwrap_or(0),
        demands.largest_response + OVERHEAD,
    );
    if bytes < needed {
        return Err(ConnectError::PacketTooSmall { bytes, needed });
    }
    if read_only != 0 {
        return not(
            "the MySQL server is read-only, as a replica is: give the address of its primary",
        );
    }
    // MariaDB's 3 flushes more than 1 does, and does not depend on the binary log.
    if is(4)? != 0 && flush != 3 && demands.durable {
        return not(
            "the MySQL server has its binary log on and sync_binlog other than 1, so that a crash loses what it \
                    acknowledged: set sync_binlog to 1, or choose `accept_weaker_durability()`",
        );
    }
    if !matches!(flush, 1 | 3) && demands.durable {
        return not(
            "the MySQL server has innodb_flush_log_at_trx_commit other than 1, so that a crash loses what it \
                    acknowledged: set it to 1, or choose `accept_weaker_durability()`",
        );
    }
    if is(5)? == 0 && demands.durable {
        tracing::warn!(
            "the MySQL server has no binary log: it shows commits a moment before they are on disk, so that a replay may \
             be taken back when it crashes. Turn log_bin on with sync_binlog = 1, or choose `accept_weaker_durability()`"
        );
    }
    if autocommit != 1 {
        return not(
            "the pool's sessions have autocommit = 0, so that nothing would be kept: set it to 1",
        );
    }
    Ok(bytes)
}

/// Rows cannot be changed under `read committed` where the binary log has statements only.
fn look_at_binary_log(variables: &[(String, String)]) -> Result<(), ConnectError> {
    let statements = |value: &str| value == "STATEMENT";
    let reads_committed = |value: &str| matches!(value, "READ-COMMITTED" | "READ-UNCOMMITTED");
    if variables.iter().any(|(_, value)| statements(value))
        && variables.iter().any(|(_, value)| reads_committed(value))
    {
        return Err(ConnectError::NotDurable {
            reason: "the MySQL server has binlog_format = STATEMENT, with which nothing can be written under read \
                     committed: set it to ROW or MIXED",
        });
    }
    Ok(())
}

/// The table's version; 0 when there is none.
async fn version(
    connection: &mut MySqlConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<i64, sqlx::Error> {
    // Either may be gone, by a hand or by a backup that knew of one only.
    for suffix in ["_versions", ""] {
        if !exists(connection, statements, table, suffix).await? {
            return Ok(0);
        }
    }
    sqlx::query_scalar(&statements.version)
        .fetch_one(connection)
        .await
}

async fn exists(
    connection: &mut MySqlConnection,
    statements: &Statements,
    table: &TableName,
    suffix: &str,
) -> Result<bool, sqlx::Error> {
    let found: i64 = sqlx::query_scalar(&statements.exists)
        .bind(table.schema())
        .bind(format!("{}{suffix}", table.name()))
        .fetch_one(connection)
        .await?;
    Ok(found > 0)
}
