//! The statements for one table.

use sqlx::SqlStr;

use super::{
    TableName,
    dialect::{Audit, Dialect, Files},
    outbox::OutboxStatements,
    statement::Statement,
};

/// All statements for one table. Most are the same file for every database.
pub(super) struct Statements {
    pub(super) claim: Statement,
    pub(super) lease: Option<Statement>,
    pub(super) read: Statement,
    /// Fails at once if another transaction has locked the record.
    pub(super) unlocked: Statement,
    pub(super) renew: Statement,
    pub(super) complete: Statement,
    pub(super) release: Statement,
    pub(super) abandon: Statement,
    pub(super) read_steps: Statement,
    pub(super) append_step: Statement,
    pub(super) purge: Vec<Statement>,
    pub(super) edge: Statement,
    pub(super) list: Statement,
    pub(super) stats: Statement,
    pub(super) tables: Statement,
    pub(super) version: Statement,
    pub(super) forget: Statement,
    pub(super) audit: Audit<Statement>,
    pub(super) outbox: OutboxStatements,
    pub(super) version_1: Statement,
    pub(super) versions: SqlStr,
    pub(super) schema: SqlStr,
    pub(super) upgrade: SqlStr,
    pub(super) upgrade_steps: SqlStr,
    pub(super) upgrade_versions: SqlStr,
    pub(super) migrated: SqlStr,
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
            purge,
            append_step,
            tables,
            versions,
            schema,
            upgrade,
            upgrade_steps,
            upgrade_versions,
            migrated,
            audit,
            outbox: _,
        } = D::FILES;
        Self {
            claim: Statement {
                inline: inline_claim,
                ..statement(claim)
            },
            lease: lease.map(statement),
            read: statement(include_str!("shared/read.sql")),
            unlocked: statement(include_str!("shared/unlocked.sql")),
            renew: statement(include_str!("shared/renew.sql")),
            complete: statement(include_str!("shared/complete.sql")),
            release: statement(include_str!("shared/release.sql")),
            abandon: statement(include_str!("shared/abandon.sql")),
            read_steps: statement(include_str!("shared/read_steps.sql")),
            append_step: statement(append_step),
            purge: purge.iter().copied().map(statement).collect(),
            edge: statement(include_str!("shared/edge.sql")),
            list: statement(include_str!("shared/list.sql")),
            stats: statement(include_str!("shared/stats.sql")),
            tables: once(tables),
            version: once(include_str!("shared/version.sql")),
            forget: once(include_str!("shared/forget.sql")),
            audit: Audit {
                table: once(audit.table),
                append: once(audit.append),
                events: once(audit.events),
            },
            outbox: OutboxStatements::new::<D>(table),
            version_1: once(include_str!("shared/version_1.sql")),
            versions: statement(versions).sql,
            schema: statement(schema).sql,
            upgrade: statement(upgrade).sql,
            upgrade_steps: statement(upgrade_steps).sql,
            upgrade_versions: statement(upgrade_versions).sql,
            migrated: statement(migrated).sql,
        }
    }
}
