//! The set-up before the first operation: creating the table or bringing it up to date, and checking it.

use super::{
    ConnectError, TableName,
    dialect::{Dialect, Driver},
    statement::Values,
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

/// The version of this crate's statements: that of the table.
const VERSION: i64 = 2;

/// What there is before a migration, or at the start.
#[derive(Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four facts, each of which may hold alone"
)]
pub(super) struct Found {
    /// Whether the table of records exists.
    pub(super) table: bool,
    /// Whether it has the columns of version 2.
    pub(super) extended: bool,
    /// Whether it has that of the steps, which the first tables of version 2 lack.
    pub(super) steps: bool,
    /// Whether the table of versions has.
    pub(super) described: bool,
    /// The version of the table; 0 without one.
    pub(super) version: i64,
    /// The oldest version of this crate that works with the table.
    pub(super) min_reader: i64,
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
    D::run(connection, statements.outbox.table.sql.clone()).await?;
    let found = look::<D>(connection, statements).await?;
    match found.version {
        0 => D::run(connection, statements.schema.clone()).await?,
        version if !found.table => return Ok(Some(version)),
        1 => {
            if !found.described {
                D::run(connection, statements.upgrade_versions.clone()).await?;
            }
            if !found.extended {
                D::run(connection, statements.upgrade.clone()).await?;
            }
            if !found.steps && !statements.upgrade_steps.as_str().is_empty() {
                D::run(connection, statements.upgrade_steps.clone()).await?;
            }
        }
        _ => return Ok(None),
    }
    D::run(connection, statements.migrated.clone()).await?;
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

/// Checks that the table exists and that this crate works with its version.
pub(super) async fn check_table<D: Dialect>(
    connection: &mut D::Connection,
    statements: &Statements,
    table: &TableName,
) -> Result<(), ConnectError> {
    let found = look::<D>(connection, statements).await;
    let found = found.map_err(refused::<D>("report the table's version"))?;
    let table = table.clone();
    // Either may be gone, dropped by hand or missing in a backup.
    if !found.table || found.version == 0 {
        return Err(ConnectError::MissingTable { table });
    }
    if found.version < VERSION || found.min_reader > VERSION {
        return Err(ConnectError::OtherVersion {
            table,
            found: found.version,
            known: VERSION,
        });
    }
    Ok(())
}

/// Looks what there is.
pub(super) async fn look<D: Driver>(
    connection: &mut D::Connection,
    statements: &Statements,
) -> Result<Found, sqlx::Error> {
    let rows = D::fetch(connection, &statements.tables, &Values::new()).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let mut found = Found {
        table: D::int(row, 0)? > 0,
        extended: D::int(row, 2)? > 0,
        described: D::int(row, 3)? > 0,
        steps: D::int(row, 4)? > 0,
        version: 0,
        min_reader: 0,
    };
    if D::int(row, 1)? > 0 {
        let version = if found.described {
            &statements.version
        } else {
            &statements.version_1
        };
        let rows = D::fetch(connection, version, &Values::new()).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        (found.version, found.min_reader) = (D::int(row, 0)?, D::int(row, 1)?);
        if found.version == VERSION && !found.steps {
            found.version = VERSION - 1;
        }
    }
    Ok(found)
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
        server
            .connections
            .watch()
            .learn::<D>(&mut connection)
            .await?;
        let released: Result<(), _> = connection.release(Ok(()));
        released.map_err(unreachable::<D>)
    };
    tokio::time::timeout(CONNECT * 2, probe)
        .await
        .unwrap_or_else(|elapsed| Err(unreachable::<D>(timed_out(elapsed))))
}
