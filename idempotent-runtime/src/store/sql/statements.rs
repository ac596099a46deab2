//! The statements for one table.

use sqlx::SqlStr;

use super::{
    TableName,
    dialect::{Audit, Dialect, Files},
    statement::Statement,
};

/// All statements for one table. Most are the same file for every database.
pub(super) struct Statements {
    pub(super) claim: Statement,
    pub(super) lease: Option<Statement>,
    pub(super) read: Statement,
    pub(super) renew: Statement,
    pub(super) complete: Statement,
    pub(super) release: Statement,
    pub(super) abandon: Statement,
    pub(super) batch: Option<Statement>,
    pub(super) purge: Statement,
    pub(super) tables: Statement,
    pub(super) version: Statement,
    pub(super) migrated: Statement,
    pub(super) forget: Statement,
    pub(super) audit: Audit<Statement>,
    pub(super) versions: SqlStr,
    pub(super) migrations: Vec<SqlStr>,
}

impl Statements {
    pub(super) fn new<D: Dialect>(table: &TableName) -> Self {
        let statement = |file: &str| D::SYNTAX.statement(file, table);
        let once = |file: &str| Statement {
            once: true,
            ..statement(file)
        };
        let Files {
            claim,
            inline_claim,
            lease,
            batch,
            purge,
            tables,
            versions,
            migrated,
            audit,
        } = D::FILES;
        Self {
            claim: Statement {
                inline: inline_claim,
                ..statement(claim)
            },
            lease: lease.map(statement),
            read: statement(include_str!("shared/read.sql")),
            renew: statement(include_str!("shared/renew.sql")),
            complete: statement(include_str!("shared/complete.sql")),
            release: statement(include_str!("shared/release.sql")),
            abandon: statement(include_str!("shared/abandon.sql")),
            batch: batch.map(statement),
            purge: statement(purge),
            tables: once(tables),
            version: once(include_str!("shared/version.sql")),
            migrated: once(migrated),
            forget: once(include_str!("shared/forget.sql")),
            audit: Audit {
                table: once(audit.table),
                append: once(audit.append),
                events: once(audit.events),
            },
            versions: statement(versions).sql,
            migrations: D::MIGRATIONS
                .iter()
                .map(|file| statement(file).sql)
                .collect(),
        }
    }
}
