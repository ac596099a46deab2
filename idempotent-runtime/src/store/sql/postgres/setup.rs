//! What happens before the first operation: connecting, looking at the server, making the table.

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
    error::{known, parse, still_there},
    pool::Connections,
    setup::{Setup, missing},
};

const SETUP: Setup = Setup {
    store: NAME,
    denies,
};

/// Wrong password, no such user or not from here, no such database.
fn denies(error: &sqlx::Error) -> bool {
    const CODES: [&str; 3] = ["28P01", "28000", "3D000"];
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| CODES.contains(&&*code))
}

pub(super) fn options(url: &str) -> Result<PgConnectOptions, ConnectError> {
    let expected = "postgres://user:password@host:port/database";
    let options: PgConnectOptions = parse(url, &["postgres", "postgresql"], expected)?;
    Ok(sqlx::ConnectOptions::disable_statement_logging(options).application_name("idempotent"))
}

/// Makes the table or brings it up to date.
pub(super) async fn migrate(
    connections: &Connections<Postgres, Session>,
    statements: &Statements,
    table: &TableName,
) -> Result<(), ConnectError> {
    let mut connection = connections
        .lend()
        .await
        .map_err(|error| SETUP.unreachable(error))?;
    let done = migrate_on(&mut connection, statements).await;
    let vanished = connection
        .settle(done)
        .map_err(SETUP.refused("make the table"))?;
    still_there(table, vanished)
}

/// In one transaction: all of it or nothing, and after whoever came first.
///
/// Gives the version of a table that was made before and is gone: then nothing is made.
async fn migrate_on(
    connection: &mut PgConnection,
    statements: &Statements,
) -> Result<Option<i64>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // The limits of the operations are none for a migration: it waits for another process's, and may take its time.
    transaction
        .execute("set local statement_timeout = 0; set local lock_timeout = '60s'")
        .await?;
    sqlx::query(LOCK)
        .persistent(false)
        .bind(&statements.versions_name)
        .execute(&mut *transaction)
        .await?;
    transaction.execute(&*statements.versions).await?;
    let found: i64 = sqlx::query_scalar(&statements.version)
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await?;
    if found != 0 && !exists(&mut transaction, &statements.table_name).await? {
        transaction.rollback().await?;
        return Ok(Some(found));
    }
    for (version, migration) in missing(&statements.migrations, found) {
        transaction.execute(migration).await?;
        sqlx::query(&statements.migrated)
            .persistent(false)
            .bind(version)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(None)
}

/// That the server keeps what it acknowledges, and that the table is the one this version knows.
pub(super) async fn check(
    connections: &Connections<Postgres, Session>,
    statements: &Statements,
    table: &TableName,
    durable: bool,
) -> Result<(), ConnectError> {
    SETUP
        .look(look(connections, statements, table, durable))
        .await
}

async fn look(
    connections: &Connections<Postgres, Session>,
    statements: &Statements,
    table: &TableName,
    durable: bool,
) -> Result<(), ConnectError> {
    let mut connection = connections
        .lend()
        .await
        .map_err(|error| SETUP.unreachable(error))?;
    let server = sqlx::query(SERVER)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await;
    look_at(&server.map_err(SETUP.refused("say what it is"))?, durable)?;
    let found = version(&mut connection, statements).await;
    let found = connection
        .settle(found)
        .map_err(SETUP.refused("say the table's version"))?;
    known(table, found, VERSION)
}

fn look_at(server: &sqlx::postgres::PgRow, durable: bool) -> Result<(), ConnectError> {
    let is = |index: usize| {
        server
            .try_get(index)
            .map_err(SETUP.refused("say what it is"))
    };
    let not = |reason| Err(ConnectError::NotDurable { reason });
    let (replica, flushes, waits, read_committed): (bool, bool, bool, bool) =
        (is(0)?, is(1)?, is(2)?, is(3)?);
    if replica {
        return not(
            "the PostgreSQL server is a replica and cannot be written to: give the address of its primary",
        );
    }
    if !flushes && durable {
        return not(
            "the PostgreSQL server runs with fsync = off, so that a crash of its machine may lose everything: turn \
                    it on, or choose `accept_weaker_durability()`",
        );
    }
    if !waits && durable {
        return not(
            "the pool's sessions have synchronous_commit = off, so that a crash of the server loses what it \
                    acknowledged: set it to on or local for these sessions, or choose `accept_weaker_durability()`",
        );
    }
    if !read_committed {
        return not(
            "the pool's sessions do not default to read committed, so that concurrent requests undo each \
                    other: set default_transaction_isolation for these sessions",
        );
    }
    Ok(())
}

/// The table's version; 0 when there is none.
async fn version(
    connection: &mut PgConnection,
    statements: &Statements,
) -> Result<i64, sqlx::Error> {
    // Either may be gone, by a hand or by a backup that knew of one only.
    for name in [&statements.versions_name, &statements.table_name] {
        if !exists(connection, name).await? {
            return Ok(0);
        }
    }
    sqlx::query_scalar(&statements.version)
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
