//! The set-up before the first operation: creating the table or bringing it up to date, and checking it.

use super::{
    ConnectError, TableName,
    dialect::{Dialect, Driver},
    statement::{Parameter, Values},
    statements::Statements,
};
#[cfg(any(feature = "mysql", feature = "postgres"))]
use super::{
    pool::{CONNECT, timed_out},
    server::{Server, ServerDialect},
};

/// The error for a connection that could not be made.
pub(super) fn unreachable<D: Dialect>(source: sqlx::Error) -> ConnectError {
    let store = D::STORE;
    if D::is_denial(&source) {
        ConnectError::Authentication { store, source }
    } else {
        ConnectError::Unreachable { store, source }
    }
}

/// The error for a statement that failed.
pub(super) fn refused<D: Dialect>(doing: &'static str) -> impl Fn(sqlx::Error) -> ConnectError {
    move |source| ConnectError::Refused {
        store: D::STORE,
        doing,
        source,
    }
}

/// Creates the table or brings it up to date. The caller has made sure that nobody else does so at the same time.
///
/// Returns the version of a table that was created before and is gone; then nothing is created.
pub(super) async fn migrate_locked<D: Dialect>(
    connection: &mut D::Connection,
    statements: &Statements,
) -> Result<Option<i64>, sqlx::Error> {
    D::run(connection, statements.versions.clone()).await?;
    D::run(connection, statements.audit.table.sql.clone()).await?;
    let found = version::<D>(connection, statements).await?;
    let (exists, _) = tables::<D>(connection, statements).await?;
    if found != 0 && !exists {
        return Ok(Some(found));
    }
    for (version, migration) in (1..).zip(&statements.migrations) {
        if version > found {
            D::run(connection, migration.clone()).await?;
            let values = Values::new().int(Parameter::Version, version);
            D::execute(connection, &statements.migrated, &values).await?;
        }
    }
    Ok(None)
}

/// An error if a migration found that the table is gone, with the version that it had.
pub(super) fn check_not_vanished(
    table: &TableName,
    vanished: Option<i64>,
) -> Result<(), ConnectError> {
    match vanished {
        None => Ok(()),
        Some(found) => Err(ConnectError::VanishedTable {
            table: table.clone(),
            found,
        }),
    }
}

/// Checks that the table exists and has this crate's version.
pub(super) async fn check_table<D: Dialect>(
    connection: &mut D::Connection,
    statements: &Statements,
    table: &TableName,
) -> Result<(), ConnectError> {
    let refused = refused::<D>("report the table's version");
    // Either may be gone, dropped by hand or missing in a backup.
    let tables = tables::<D>(connection, statements).await;
    if tables.map_err(&refused)? != (true, true) {
        return Err(ConnectError::MissingTable {
            table: table.clone(),
        });
    }
    let found = version::<D>(connection, statements).await;
    check_version(table, found.map_err(refused)?, known::<D>())
}

/// The version that this crate works with.
#[expect(clippy::cast_possible_wrap, reason = "migrations are few")]
fn known<D: Dialect>() -> i64 {
    D::MIGRATIONS.len() as i64
}

fn check_version(table: &TableName, found: i64, known: i64) -> Result<(), ConnectError> {
    let table = table.clone();
    match found {
        0 => Err(ConnectError::MissingTable { table }),
        _ if found == known => Ok(()),
        _ => Err(ConnectError::OtherVersion {
            table,
            found,
            known,
        }),
    }
}

async fn version<D: Driver>(
    connection: &mut D::Connection,
    statements: &Statements,
) -> Result<i64, sqlx::Error> {
    let rows = D::fetch(connection, &statements.version, &Values::new()).await?;
    D::int(rows.first().ok_or(sqlx::Error::RowNotFound)?, 0)
}

/// Whether the tables of the records and of their versions exist.
async fn tables<D: Driver>(
    connection: &mut D::Connection,
    statements: &Statements,
) -> Result<(bool, bool), sqlx::Error> {
    let rows = D::fetch(connection, &statements.tables, &Values::new()).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok((D::int(row, 0)? > 0, D::int(row, 1)? > 0))
}

/// Creates the table or brings it up to date.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) async fn migrate<D: ServerDialect>(server: &Server<D>) -> Result<(), ConnectError> {
    let mut connection = server
        .connections
        .acquire()
        .await
        .map_err(unreachable::<D>)?;
    let migrated = D::migrate(server, &mut connection).await;
    // Its session has other time-outs now.
    connection.close();
    let vanished = migrated.map_err(refused::<D>("create the table"))?;
    check_not_vanished(&server.table, vanished)
}

/// Checks that the server keeps acknowledged writes, and that the table has this crate's version.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) async fn check<D: ServerDialect>(server: &Server<D>) -> Result<(), ConnectError> {
    let probe = async {
        let mut connection = server
            .connections
            .acquire()
            .await
            .map_err(unreachable::<D>)?;
        D::check(server, &mut connection).await?;
        check_table::<D>(&mut connection, &server.statements, &server.table).await?;
        let released: Result<(), _> = connection.release(Ok(()));
        released.map_err(unreachable::<D>)
    };
    tokio::time::timeout(CONNECT * 2, probe)
        .await
        .unwrap_or_else(|elapsed| Err(unreachable::<D>(timed_out(elapsed))))
}
