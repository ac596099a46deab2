//! [`SqlStore`] and [`SqlStoreBuilder`]: the store and its builder, over any of the databases.

use std::{fmt, sync::Arc};

use super::{
    ConnectError, TableName,
    dialect::{Backend, Dialect},
    operations::Change,
};
use crate::{
    scope::StoreKey,
    store::{
        Inspectable, Operation, Store,
        admin::Administrable,
        error::StoreError,
        inspect::{Cursor, Page, Query, Stats},
        outbox::OutboxStore,
        record::{Acquisition, Claim, Held, Outcome, Record, Write},
        steps::StepLog,
        token::Token,
        transaction::Transactions,
        wake::Wake,
        weakness::{Accepted, Weakness},
    },
};

/// Keeps records in an SQL database: a [`PostgresStore`](super::postgres::PostgresStore),
/// [`MySqlStore`](super::mysql::MySqlStore) or [`SqliteStore`](super::sqlite::SqliteStore).
///
/// The parameter is sqlx's type for the database. Clones share the connections.
#[expect(private_bounds, reason = "the databases are those of this crate")]
pub struct SqlStore<D: Dialect>(pub(super) Arc<D::Backend>);

/// Settings of an [`SqlStore`].
#[must_use = "a builder does nothing until it connects"]
#[expect(private_bounds, reason = "the databases are those of this crate")]
pub struct SqlStoreBuilder<D: Dialect> {
    pub(super) table: TableName,
    pub(super) migrate: bool,
    pub(super) settings: D::Settings,
}

#[expect(private_bounds, reason = "the databases are those of this crate")]
impl<D: Dialect> SqlStore<D> {
    /// Connects to this URL with default settings, and checks database and table.
    ///
    /// # Errors
    ///
    /// As [`SqlStoreBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(url).await
    }

    /// The default settings.
    pub fn builder() -> SqlStoreBuilder<D> {
        SqlStoreBuilder {
            table: TableName::default(),
            migrate: D::MIGRATES,
            settings: D::Settings::default(),
        }
    }
}

#[expect(private_bounds, reason = "the databases are those of this crate")]
impl<D: Dialect> SqlStoreBuilder<D> {
    /// The table; on a server with a schema (MySQL: a database), unless the connection's is to be used. SQLite has no
    /// schemas. `idempotency_records` unless set.
    pub fn table(mut self, table: TableName) -> Self {
        self.table = table;
        self
    }

    /// Whether [`connect`](Self::connect) creates the table or brings it up to date. Unless set, on for a file, and off for
    /// a server: a service that serves requests should not need the right to change the schema.
    pub fn migrate(mut self, yes: bool) -> Self {
        self.migrate = yes;
        self
    }

    /// Accepts a database with this weakness, and with no other; may be called several times. Neon needs it for
    /// [`Weakness::FsyncOff`], because its storage keeps commits elsewhere.
    ///
    /// **This weakens the promise**: after a crash, acknowledged keys may be free again, and their requests execute a
    /// second time. What was accepted is logged as a warning.
    pub fn accept(mut self, weakness: Weakness) -> Self {
        D::accepted(&mut self.settings).accept(weakness);
        self
    }

    /// Accepts a server that does not report all settings on which its durability depends, with a warning in the log. It
    /// accepts no weakness that is found.
    pub fn accept_unverified(mut self) -> Self {
        D::accepted(&mut self.settings).unverified = true;
        self
    }

    pub(in crate::store) fn accept_all(mut self, accepted: Accepted) -> Self {
        *D::accepted(&mut self.settings) = accepted;
        self
    }

    /// Connects to `postgres://user:password@host:port/database`, `mysql://user:password@host:port/database` or
    /// `sqlite://path/to/file.db`, migrates if that is [set](Self::migrate), and checks database and table.
    ///
    /// # Errors
    ///
    /// If the URL or a setting is wrong, the database cannot be reached, refuses or is not durable, or the table is missing
    /// or has a version that this crate does not work with.
    pub async fn connect(self, url: &str) -> Result<SqlStore<D>, ConnectError> {
        self.open(D::options(url)?).await
    }

    pub(super) async fn open(self, options: D::Options) -> Result<SqlStore<D>, ConnectError> {
        let backend = D::open(options, &self.table, self.migrate, &self.settings).await?;
        Ok(SqlStore(Arc::new(backend)))
    }
}

impl<D: Dialect> Store for SqlStore<D> {
    fn name(&self) -> &'static str {
        D::STORE
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.0.acquire(claim).await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.0.write(Change::Renew(held)).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.0.write(Change::Complete(held, outcome)).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.0.write(Change::Release(key, token)).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.0.write(Change::Abandon(key, token)).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.0.get(key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.0.purge(limit).await
    }

    fn attach(&self, wake: Wake) {
        self.0.attach(wake);
    }

    fn step_log(&self) -> Option<&dyn StepLog> {
        Some(self)
    }

    fn administrable(&self) -> Option<&dyn Administrable> {
        Some(self)
    }

    fn transactions(&self) -> Option<&dyn Transactions> {
        Some(self.0.transactions())
    }

    fn inspectable(&self) -> Option<&dyn Inspectable> {
        Some(self)
    }

    fn outbox(&self) -> Option<&dyn OutboxStore> {
        Some(self)
    }
}

impl<D: Dialect> Inspectable for SqlStore<D> {
    fn list<'a>(&'a self, query: &'a Query) -> Operation<'a, Page> {
        Box::pin(self.0.list(query))
    }

    fn stats<'a>(&'a self, cursor: Option<&'a Cursor>, max_scan: usize) -> Operation<'a, Stats> {
        Box::pin(self.0.stats(cursor, max_scan))
    }
}

impl<D: Dialect> Clone for SqlStore<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Dialect> fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<D: Dialect> Clone for SqlStoreBuilder<D> {
    fn clone(&self) -> Self {
        Self {
            table: self.table.clone(),
            migrate: self.migrate,
            settings: self.settings.clone(),
        }
    }
}

impl<D: Dialect> fmt::Debug for SqlStoreBuilder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStoreBuilder")
            .field("table", &self.table)
            .field("migrate", &self.migrate)
            .field("settings", &self.settings)
            .finish()
    }
}
