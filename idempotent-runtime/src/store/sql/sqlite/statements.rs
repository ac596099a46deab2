//! The statements for one table, each in its own file.

use sqlx::SqlStr;

use crate::store::sql::{TableName, statement::Dialect};

const SQLITE: Dialect = Dialect { quote: '"' };

/// Every version of the table, in order: the first makes version 1.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];

/// The version that this crate works with.
#[expect(clippy::cast_possible_wrap, reason = "migrations are few")]
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

pub(super) struct Statements {
    pub(super) read: SqlStr,
    pub(super) claim: SqlStr,
    pub(super) renew: SqlStr,
    pub(super) complete: SqlStr,
    pub(super) release: SqlStr,
    pub(super) abandon: SqlStr,
    pub(super) purge: SqlStr,
    pub(super) versions: SqlStr,
    pub(super) version: SqlStr,
    pub(super) migrated: SqlStr,
    pub(super) exists: SqlStr,
    pub(super) probe: SqlStr,
    pub(super) migrations: Vec<SqlStr>,
}

impl Statements {
    pub(super) fn new(table: &TableName) -> Self {
        let statement = |file: &str| SQLITE.statement(file, table);
        Self {
            read: statement(include_str!("read.sql")),
            claim: statement(include_str!("claim.sql")),
            renew: statement(include_str!("renew.sql")),
            complete: statement(include_str!("complete.sql")),
            release: statement(include_str!("release.sql")),
            abandon: statement(include_str!("abandon.sql")),
            purge: statement(include_str!("purge.sql")),
            versions: statement(include_str!("versions.sql")),
            version: statement(include_str!("version.sql")),
            migrated: statement(include_str!("migrated.sql")),
            exists: statement(include_str!("exists.sql")),
            probe: statement(include_str!("probe.sql")),
            migrations: MIGRATIONS.map(statement).into(),
        }
    }
}
