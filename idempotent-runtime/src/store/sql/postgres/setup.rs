//! The set-up before the first operation: connecting, probing the server, creating the table.

use sqlx::{
    Acquire as _, Executor as _, PgConnection, Postgres, Row as _, error::DatabaseError,
    postgres::PgConnectOptions,
};

use super::{
    NAME,
    records::Session,
    statements::{EXISTS, LOCK, SERVER, Statements, VERSION},
};
use crate::store::sql::{
    ConnectError, TableName,
    error::{check_not_vanished, check_version, parse},
    pool::Connections,
    setup::{Setup, pending},
};

const SETUP: Setup = Setup {
    store: NAME,
    is_denial,
};

/// A wrong password, an unknown user or one not allowed from this host, an unknown database.
fn is_denial(error: &sqlx::Error) -> bool {
    const CODES: [&str; 3] = ["28P01", "28000", "3D000"];
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| CODES.contains(&&*code))
}

pub(super) fn options(url: &str) -> Result<PgConnectOptions, ConnectError> {
    let expected = "postgres://user:password@host:port/database";
    let options: PgConnectOptions = parse(url, &["postgres", "postgresql"], expected)?;
    Ok(sqlx::ConnectOptions::disable_statement_logging(options).application_name("idempotent"))
}

/// Creates the table or brings it up to date.
pub(super) async fn migrate(
    connections: &Connections<Postgres, Session>,
    statements: &Statements,
    table: &TableName,
) -> Result<(), ConnectError> {
    let mut connection = connections
        .acquire()
        .await
        .map_err(|error| SETUP.unreachable(error))?;
    let done = migrate_on(&mut connection, statements).await;
    let vanished = connection
        .release(done)
        .map_err(SETUP.refused("create the table"))?;
    check_not_vanished(table, vanished)
}

/// Migrates in one transaction: all of it or nothing. Concurrent migrations wait for each other.
///
/// Returns the version of a table that was created before and is gone; then nothing is created.
async fn migrate_on(
    connection: &mut PgConnection,
    statements: &Statements,
) -> Result<Option<i64>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // The time-outs of operations do not suit a migration, which waits for other migrations and may take long.
    transaction
        .execute("set local statement_timeout = 0; set local lock_timeout = '60s'")
        .await?;
    sqlx::query(LOCK)
        .persistent(false)
        .bind(&statements.versions_name)
        .execute(&mut *transaction)
        .await?;
    transaction.execute(statements.versions.clone()).await?;
    let found: i64 = sqlx::query_scalar(statements.version.clone())
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await?;
    if found != 0 && !exists(&mut transaction, &statements.table_name).await? {
        transaction.rollback().await?;
        return Ok(Some(found));
    }
    for (version, migration) in pending(&statements.migrations, found) {
        transaction.execute(migration.clone()).await?;
        sqlx::query(statements.migrated.clone())
            .persistent(false)
            .bind(version)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(None)
}

/// Checks that the server keeps acknowledged writes, and that the table has this crate's version.
pub(super) async fn check(
    connections: &Connections<Postgres, Session>,
    statements: &Statements,
    table: &TableName,
    durable: bool,
) -> Result<(), ConnectError> {
    SETUP
        .bounded(probe(connections, statements, table, durable))
        .await
}

async fn probe(
    connections: &Connections<Postgres, Session>,
    statements: &Statements,
    table: &TableName,
    durable: bool,
) -> Result<(), ConnectError> {
    let mut connection = connections
        .acquire()
        .await
        .map_err(|error| SETUP.unreachable(error))?;
    let server = sqlx::query(SERVER)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await;
    check_server(
        &server.map_err(SETUP.refused("report its settings"))?,
        durable,
    )?;
    let found = version(&mut connection, statements).await;
    let found = connection
        .release(found)
        .map_err(SETUP.refused("report the table's version"))?;
    check_version(table, found, VERSION)
}

fn check_server(server: &sqlx::postgres::PgRow, durable: bool) -> Result<(), ConnectError> {
    let is = |index: usize| {
        server
            .try_get(index)
            .map_err(SETUP.refused("report its settings"))
    };
    let not = |reason| Err(ConnectError::NotDurable { reason });
    let (replica, flushes, waits, read_committed): (bool, bool, bool, bool) =
        (is(0)?, is(1)?, is(2)?, is(3)?);
    if replica {
        return not(
            "the PostgreSQL server is a read-only replica: give the address of its primary",
        );
    }
    if !flushes && durable {
        return not(
            "the PostgreSQL server runs with fsync = off, so that a crash of its machine may lose everything: set it \
             to on, or choose `accept_weaker_durability()`",
        );
    }
    if !waits && durable {
        return not(
            "the pool's sessions have synchronous_commit = off, so that a crash of the server loses acknowledged \
             writes: set it to on or local for these sessions, or choose `accept_weaker_durability()`",
        );
    }
    if !read_committed {
        return not(
            "the pool's sessions do not default to read committed, so that concurrent requests roll each other back: \
             set default_transaction_isolation to read committed for these sessions",
        );
    }
    Ok(())
}

/// The table's version; 0 if the table or that of its versions does not exist.
async fn version(
    connection: &mut PgConnection,
    statements: &Statements,
) -> Result<i64, sqlx::Error> {
    // Either may be gone, dropped by hand or missing in a backup.
    for name in [&statements.versions_name, &statements.table_name] {
        if !exists(connection, name).await? {
            return Ok(0);
        }
    }
    sqlx::query_scalar(statements.version.clone())
        .persistent(false)
        .fetch_one(connection)
        .await
}

async fn exists(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(EXISTS)
        .persistent(false)
        .bind(name)
        .fetch_one(connection)
        .await
}
