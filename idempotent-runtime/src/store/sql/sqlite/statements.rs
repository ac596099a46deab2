//! The statements for one table, each in its own file.

use crate::store::sql::{TableName, statement::Dialect};

const SQLITE: Dialect = Dialect { quote: '"' };

/// Every version of the table, in order: the first makes version 1.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];

/// The version that this crate works with.
#[expect(clippy::cast_possible_wrap, reason = "migrations are few")]
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

pub(super) struct Statements {
    pub(super) read: String,
    pub(super) claim: String,
    pub(super) renew: String,
    pub(super) complete: String,
    pub(super) release: String,
    pub(super) abandon: String,
    pub(super) purge: String,
    pub(super) versions: String,
    pub(super) version: String,
    pub(super) migrated: String,
    pub(super) exists: String,
    pub(super) probe: String,
    pub(super) migrations: Vec<String>,
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
