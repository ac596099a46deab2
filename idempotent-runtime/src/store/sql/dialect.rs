//! [`Dialect`]: what is particular to one database. Everything else is written once, over it.

use std::fmt;

use sqlx::{AssertSqlSafe, Database, Executor as _, Row as _, SqlStr, query};

use super::{
    TableName,
    admin::{Act, Told},
    error::{ConnectError, Verdict},
    operations::{Access, Change},
    outbox::{OutboxAct, OutboxAnswer, OutboxFiles},
    purge::Batch,
    statement::{Statement, Syntax, Value, Values},
    statements::Statements,
};
use crate::{
    scope::StoreKey,
    store::{
        error::StoreError,
        inspect::{Cursor, Page, Query, Stats},
        record::{Acquisition, Claim, Record, Write},
        steps::StepsRead,
        token::Token,
        transaction::Transactions,
        wake::Wake,
        weakness::Accepted,
    },
};

/// A database, by sqlx's type for it.
pub(super) trait Dialect: Driver + fmt::Debug {
    /// The store's name, for logs, metrics and errors.
    const STORE: &'static str;
    const SYNTAX: Syntax;
    /// The statements that other databases do not share.
    const FILES: Files;
    /// Whether opening a store migrates unless the builder says otherwise.
    const MIGRATES: bool;

    /// What the operations run on.
    type Backend: Backend;
    /// The settings of a builder beside those that every store has.
    type Settings: Clone + fmt::Debug + Default + Send + Sync;
    type Options: Send;

    /// What the builder's operator accepts.
    fn accepted(settings: &mut Self::Settings) -> &mut Accepted;

    /// The options in a URL.
    fn options(url: &str) -> Result<Self::Options, ConnectError>;

    /// Opens the store, creates its table or brings it up to date if that is asked for, and checks all.
    fn open(
        options: Self::Options,
        table: &TableName,
        migrate: bool,
        settings: &Self::Settings,
    ) -> impl Future<Output = Result<Self::Backend, ConnectError>> + Send;

    /// What an error of a statement means, and whether to repeat the statement at once.
    fn classify(error: &sqlx::Error) -> Verdict;

    /// Looks at `{limit}` records in the order in which the purge is to look at them, deletes those that have expired, and
    /// moves the others on. Starts at the time `{from}` where a deleted row stays in the index.
    fn purge<A: Access<Self>>(
        access: &mut A,
        statements: &Statements,
        values: &Values<'_>,
        limit: i64,
    ) -> impl Future<Output = Result<Batch, sqlx::Error>> + Send;

    /// Whether transactions lock single records.
    const LOCKS_RECORDS: bool;

    /// Whether a claim may wait for a record that the handler's transaction of another has locked, although the record is
    /// there to be read.
    const CLAIMS_WAIT: bool;

    /// Whether a statement was given up because another transaction has locked its record.
    fn is_locked(error: &sqlx::Error) -> bool;

    /// Whether the server or the client cancelled a statement because it took too long.
    fn took_too_long(error: &sqlx::Error) -> bool;

    /// Whether this error means that the server refuses the user, its password or the database.
    fn is_denial(error: &sqlx::Error) -> bool;
}

/// The statements of one database: the text of their files.
pub(super) struct Files {
    /// Claims the key, or returns its record.
    pub(super) claim: &'static str,
    /// Whether the claim is several statements in one message.
    pub(super) inline_claim: bool,
    /// Leases a record that was found to be free, where the claim itself does not.
    pub(super) lease: Option<&'static str>,
    /// The steps of the purge.
    pub(super) purge: &'static [&'static str],
    /// Appends to the log of an execution's steps.
    pub(super) append_step: &'static str,
    /// Whether the tables of the records and of their versions exist.
    pub(super) tables: &'static str,
    /// Creates the table of versions.
    pub(super) versions: &'static str,
    /// Creates the table.
    pub(super) schema: &'static str,
    /// Changes a table of version 1 to version 2.
    pub(super) upgrade: &'static str,
    /// Adds the column of the steps, where the upgrade does not.
    pub(super) upgrade_steps: &'static str,
    /// Changes its table of versions.
    pub(super) upgrade_versions: &'static str,
    /// Notes the version.
    pub(super) migrated: &'static str,
    /// The table of what operators did.
    pub(super) audit: Audit<&'static str>,
    /// The table of messages.
    pub(super) outbox: OutboxFiles,
}

/// The statements of the table of what operators did.
#[derive(Clone, Copy)]
pub(super) struct Audit<S> {
    /// Creates the table.
    pub(super) table: S,
    pub(super) append: S,
    /// The newest events.
    pub(super) events: S,
}

/// What the operations of a store run on: a server, or the writer of a file. Each is one step of the contract.
pub(super) trait Backend: Send + Sync + fmt::Debug + 'static {
    fn acquire(
        &self,
        claim: &Claim,
    ) -> impl Future<Output = Result<Acquisition, StoreError>> + Send;

    fn write(&self, change: Change<'_>) -> impl Future<Output = Result<Write, StoreError>> + Send;

    fn get(
        &self,
        key: &StoreKey,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    fn purge(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;

    fn read_steps(
        &self,
        key: &StoreKey,
        token: &Token,
    ) -> impl Future<Output = Result<StepsRead, StoreError>> + Send;

    fn append_step(
        &self,
        key: &StoreKey,
        token: &Token,
        at: usize,
        bytes: &[u8],
    ) -> impl Future<Output = Result<Write, StoreError>> + Send;

    fn administer(&self, act: Act) -> impl Future<Output = Result<Told, StoreError>> + Send;

    fn outbox(
        &self,
        act: OutboxAct,
    ) -> impl Future<Output = Result<OutboxAnswer, StoreError>> + Send;

    fn list(&self, query: &Query) -> impl Future<Output = Result<Page, StoreError>> + Send;

    fn stats(
        &self,
        cursor: Option<&Cursor>,
        max_scan: usize,
    ) -> impl Future<Output = Result<Stats, StoreError>> + Send;

    fn attach(&self, wake: Wake);

    fn transactions(&self) -> &dyn Transactions;
}

/// sqlx's driver of a database, without the bounds that sqlx needs for each type of value.
pub(super) trait Driver: Database {
    /// Fetches all rows, also where there is one at most: the answer counts only after the commit has returned.
    fn fetch(
        connection: &mut Self::Connection,
        statement: &Statement,
        values: &Values<'_>,
    ) -> impl Future<Output = Result<Vec<Self::Row>, sqlx::Error>> + Send;

    /// Returns how many rows the statement changed: all that match, also those that already had the new values.
    fn execute(
        connection: &mut Self::Connection,
        statement: &Statement,
        values: &Values<'_>,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Runs one or several statements without values, unprepared.
    fn run(
        connection: &mut Self::Connection,
        sql: SqlStr,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    fn int(row: &Self::Row, column: usize) -> Result<i64, sqlx::Error>;

    fn maybe_int(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error>;

    fn text(row: &Self::Row, column: usize) -> Result<Option<String>, sqlx::Error>;

    fn bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error>;
}

macro_rules! bound {
    ($statement:expr, $values:expr) => {{
        let mut query: query::Query<'_, Self, _> =
            sqlx::query($statement.sql.clone()).persistent(!$statement.once);
        for parameter in &$statement.parameters {
            query = match $values.get(*parameter) {
                Value::Int(number) => query.bind(number),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Text(text) => query.bind(text),
            };
        }
        query
    }};
}

macro_rules! driver {
    ($database:ty, $feature:literal) => {
        #[cfg(feature = $feature)]
        impl Driver for $database {
            async fn fetch(
                connection: &mut Self::Connection,
                statement: &Statement,
                values: &Values<'_>,
            ) -> Result<Vec<Self::Row>, sqlx::Error> {
                if statement.inline {
                    // The values are numbers and hexadecimal digits.
                    let sql = AssertSqlSafe(statement.inlined(values));
                    return connection.fetch_all(sql).await;
                }
                connection.fetch_all(bound!(statement, values)).await
            }

            async fn execute(
                connection: &mut Self::Connection,
                statement: &Statement,
                values: &Values<'_>,
            ) -> Result<u64, sqlx::Error> {
                let done = connection.execute(bound!(statement, values)).await?;
                Ok(done.rows_affected())
            }

            async fn run(
                connection: &mut Self::Connection,
                sql: SqlStr,
            ) -> Result<(), sqlx::Error> {
                connection.execute(sql).await.map(drop)
            }

            fn int(row: &Self::Row, column: usize) -> Result<i64, sqlx::Error> {
                row.try_get(column)
            }

            fn maybe_int(row: &Self::Row, column: usize) -> Result<Option<i64>, sqlx::Error> {
                row.try_get(column)
            }

            fn text(row: &Self::Row, column: usize) -> Result<Option<String>, sqlx::Error> {
                row.try_get(column)
            }

            fn bytes(row: &Self::Row, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
                row.try_get(column)
            }
        }
    };
}

driver!(sqlx::MySql, "mysql");
driver!(sqlx::Postgres, "postgres");
driver!(sqlx::Sqlite, "sqlite");
