//! The statements for one table, each in its own file.

use sqlx::SqlStr;

use crate::store::sql::{TableName, statement::Dialect};

const POSTGRES: Dialect = Dialect { quote: '"' };

/// Every version of the table, in order: the first makes version 1.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];

/// The version that this crate works with.
#[expect(clippy::cast_possible_wrap, reason = "migrations are few")]
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Sets up a session of the store's own.
pub(super) const SESSION: &str = include_str!("session.sql");
/// Reads the settings of the server that matter to the store.
pub(super) const SERVER: &str = include_str!("server.sql");
/// Whether a table exists.
pub(super) const EXISTS: &str = include_str!("exists.sql");
/// One migration at a time.
pub(super) const LOCK: &str = include_str!("lock.sql");

pub(super) struct Statements {
    pub(super) acquire: SqlStr,
    pub(super) read: SqlStr,
    pub(super) renew: SqlStr,
    pub(super) complete: SqlStr,
    pub(super) release: SqlStr,
    pub(super) abandon: SqlStr,
    pub(super) purge: SqlStr,
    pub(super) versions: SqlStr,
    /// The names of the table and of that of its versions, quoted for `to_regclass`.
    pub(super) table_name: String,
    pub(super) versions_name: String,
    pub(super) version: SqlStr,
    pub(super) migrated: SqlStr,
    pub(super) migrations: Vec<SqlStr>,
}

impl Statements {
    pub(super) fn new(table: &TableName) -> Self {
        let statement = |file: &str| POSTGRES.statement(file, table);
        Self {
            acquire: statement(include_str!("acquire.sql")),
            read: statement(include_str!("read.sql")),
            renew: statement(include_str!("renew.sql")),
            complete: statement(include_str!("complete.sql")),
            release: statement(include_str!("release.sql")),
            abandon: statement(include_str!("abandon.sql")),
            purge: statement(include_str!("purge.sql")),
            versions: statement(include_str!("versions.sql")),
            table_name: statement("{table}").as_str().to_owned(),
            versions_name: statement("{versions}").as_str().to_owned(),
            version: statement(include_str!("version.sql")),
            migrated: statement(include_str!("migrated.sql")),
            migrations: MIGRATIONS.map(statement).into(),
        }
    }
}
