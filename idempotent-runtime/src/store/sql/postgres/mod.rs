//! [`PostgresStore`]: records in a PostgreSQL table.
//!
//! # What is guaranteed
//!
//! | failure | what stays |
//! |---|---|
//! | a process of the service is killed | everything |
//! | the server is killed, or its machine | everything that was acknowledged |
//! | failover to a replica | what had reached the replica: with `synchronous_standby_names` everything, without it not the last moments |
//! | the network loses a reply | everything: the operation is repeated with the same token |
//!
//! 1. Every operation is one statement in a transaction of its own, under `read committed`. An acquire is one round
//!    trip whether it succeeds or not; if the record changes during the statement, it is repeated.
//! 2. A replay writes nothing, so that it does not wait for a flush.
//! 3. The clock is the server's `clock_timestamp()`.
//! 4. The store's own sessions commit durably, also if the server's default is not to, and cancel statements after
//!    [`time_out`](PostgresStoreBuilder::time_out).
//!
//! # The application's own pool
//!
//! [`from_pool`](PostgresStoreBuilder::from_pool) uses it. The application sets up its sessions, so
//! [`check`](PostgresStore::check) checks their settings. A pool of sqlx pings the server with every release of a
//! connection, and unless it has `test_before_acquire(false)`, with every acquire too: the store's own connections cost
//! less.
//!
//! Through a transaction pooler such as PgBouncer, session settings leak to other clients. Use an application's pool
//! there, with the settings on its database user, and a pooler that supports prepared statements.
//!
//! # Waking waiters
//!
//! Requests in other processes that wait for an execution poll. With [`notify`](PostgresStoreBuilder::notify) each
//! process also listens, and the completion wakes it. Notifications are sent after the completion was acknowledged,
//! many in one statement: sent with the completion they halve the commit rate, because PostgreSQL commits transactions
//! that notify one at a time.
//!
//! # TLS
//!
//! Feature `sql-tls`. `sslmode=verify-full` in the URL requires TLS and checks the server's certificate against the
//! system's root certificates, or those in the file that the environment variable `SSL_CERT_FILE` names. The driver's
//! default, `sslmode=prefer`, accepts any certificate and continues without TLS if the server has none: set a mode
//! unless the network is your own.
//!
//! # Example
//!
//! ```no_run
//! use idempotent_runtime::{Idempotency, store::sql::postgres::PostgresStore};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let store = PostgresStore::builder()
//!     .table("payments.idempotency_records".parse()?)
//!     .migrate(true)
//!     .connect("postgres://app:secret@db.internal/shop")
//!     .await?;
//! let idempotency = Idempotency::builder().store(store).build()?;
//! # Ok(())
//! # }
//! ```

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{PgPool, Postgres};

use self::{
    notify::Notifier,
    records::{Remote, Session},
    statements::Statements,
};
use super::{
    ConnectError, TableName,
    error::check_time_out,
    operations::{self, Change},
    pool::Connections,
    purge::Cursor,
};
use crate::{
    scope::StoreKey,
    store::{
        Store,
        error::StoreError,
        record::{Acquisition, Claim, Held, Outcome, Record, Write},
        token::Token,
        wake::Wake,
    },
};

mod notify;
mod records;
mod setup;
mod statements;

const NAME: &str = "postgres";

/// Keeps records in PostgreSQL. See the [module documentation](self).
///
/// Clones share the connections.
#[derive(Clone)]
pub struct PostgresStore(Arc<Inner>);

struct Inner {
    connections: Connections<Postgres, Session>,
    statements: Statements,
    table: TableName,
    /// Whether the server must keep acknowledged writes.
    durable: bool,
    notifier: Option<Notifier>,
    cursor: Cursor,
}

/// Settings of a [`PostgresStore`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct PostgresStoreBuilder {
    table: TableName,
    migrate: bool,
    connections: usize,
    time_out: Duration,
    weak: bool,
    notify: bool,
}

impl PostgresStore {
    /// Connects to `postgres://user:password@host:port/database` with default settings, and checks server and table.
    /// The table must exist.
    ///
    /// # Errors
    ///
    /// If the URL is wrong, the server cannot be reached, refuses or is not durable, or the table is missing or has
    /// another version.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(url).await
    }

    /// The default settings.
    pub fn builder() -> PostgresStoreBuilder {
        PostgresStoreBuilder {
            table: TableName::default(),
            migrate: false,
            connections: 10,
            time_out: Duration::from_secs(2),
            weak: false,
            notify: false,
        }
    }

    /// Creates the table or brings it up to date. Many processes may do so at once.
    ///
    /// # Errors
    ///
    /// If the server refuses, because the schema does not exist or the user lacks the permission; then nothing has
    /// changed.
    pub async fn migrate(&self) -> Result<(), ConnectError> {
        setup::migrate(&self.0.connections, &self.0.statements, &self.0.table).await
    }

    /// Checks that the server keeps acknowledged writes, and that the table exists and has this crate's version.
    ///
    /// # Errors
    ///
    /// If one of these is not so.
    pub async fn check(&self) -> Result<(), ConnectError> {
        let Inner {
            connections,
            statements,
            table,
            durable,
            ..
        } = &*self.0;
        setup::check(connections, statements, table, *durable).await
    }

    /// Closes the store's own connections, including the one that listens. Later operations fail. An application's pool
    /// stays open and goes on serving operations.
    pub async fn close(&self) {
        self.0.connections.close().await;
    }

    /// A write that waiters of the record are notified of.
    async fn change(&self, change: Change<'_>) -> Result<Write, StoreError> {
        let key = *change.key();
        let write = operations::write(&mut self.records(), change).await?;
        if let (Write::Applied, Some(notifier)) = (write, &self.0.notifier) {
            notifier.notify(&key);
        }
        Ok(write)
    }

    fn records(&self) -> Remote<'_> {
        Remote {
            connections: &self.0.connections,
            statements: &self.0.statements,
            cursor: &self.0.cursor,
        }
    }
}

impl PostgresStoreBuilder {
    /// The table, with a schema unless the search path is to decide. `idempotency_records` unless set.
    pub fn table(mut self, table: TableName) -> Self {
        self.table = table;
        self
    }

    /// Whether [`connect`](Self::connect) creates the table or brings it up to date. Off unless set: a service that
    /// serves requests should not need the right to change the schema.
    pub fn migrate(mut self, yes: bool) -> Self {
        self.migrate = yes;
        self
    }

    /// The largest number of connections. 10 unless set. Making one may take 5 seconds at most; if its statement has
    /// given up by then, it serves the next one.
    pub fn connections(mut self, max: usize) -> Self {
        self.connections = max;
        self
    }

    /// The time after which the server cancels a statement; a wait for a lock is cancelled after half of it. 2 seconds
    /// unless set, like the engine's store time-out. After twice the time, and at least a second, the store gives up on
    /// the server; that is the only limit for statements of an application's own pool. [`connect`](Self::connect)
    /// refuses less than a millisecond; the server's own maximum is 24 days.
    pub fn time_out(mut self, time_out: Duration) -> Self {
        self.time_out = time_out;
        self
    }

    /// Whether waiters in other processes are woken by LISTEN and NOTIFY. Off unless set: see
    /// [Waking waiters](self#waking-waiters). It takes one more connection, which does not count towards an
    /// application's pool but is made with that pool's current options. After a server that did not answer at all, the
    /// connection is made again in 30 to 90 seconds; waiters poll meanwhile.
    pub fn notify(mut self, yes: bool) -> Self {
        self.notify = yes;
        self
    }

    /// Accepts a server that does not wait for its disk, or reports that it does not: Neon runs with `fsync = off`,
    /// because its storage keeps commits elsewhere. After a crash, acknowledged keys may be free again, and their
    /// requests execute a second time.
    pub fn accept_weaker_durability(mut self) -> Self {
        self.weak = true;
        self
    }

    /// Connects to `postgres://user:password@host:port/database`, migrates if that is [set](Self::migrate), and
    /// [checks](PostgresStore::check) server and table.
    ///
    /// # Errors
    ///
    /// If the URL or the time-out is wrong, the server cannot be reached, refuses or is not durable, or the table is
    /// missing or has another version.
    pub async fn connect(self, url: &str) -> Result<PostgresStore, ConnectError> {
        check_time_out(self.time_out)?;
        let options = setup::options(url)?;
        let session = Session {
            time_out: self.time_out,
        };
        let store = self.clone().over(Connections::own(
            options,
            session,
            self.connections,
            self.time_out,
        ));
        if self.migrate {
            store.migrate().await?;
        }
        store.check().await?;
        Ok(store)
    }

    /// Uses the application's own pool. Sends nothing to the server: call [`migrate`](PostgresStore::migrate) and
    /// [`check`](PostgresStore::check) yourself. If the pool has to make a connection for the store, that may take 5
    /// seconds at most.
    #[must_use]
    pub fn from_pool(self, pool: PgPool) -> PostgresStore {
        let connections = Connections::of_application(pool, self.time_out);
        self.over(connections)
    }

    fn over(self, connections: Connections<Postgres, Session>) -> PostgresStore {
        let statements = Statements::new(&self.table);
        let notifier = self
            .notify
            .then(|| Notifier::new(connections.clone(), &self.table));
        PostgresStore(Arc::new(Inner {
            connections,
            statements,
            table: self.table,
            durable: !self.weak,
            notifier,
            cursor: Cursor::default(),
        }))
    }
}

impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        operations::acquire(&mut self.records(), claim).await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        operations::write(&mut self.records(), Change::Renew(held)).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.change(Change::Complete(held, outcome)).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.change(Change::Release(key, token)).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.change(Change::Abandon(key, token)).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        operations::get(&mut self.records(), key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        operations::purge(&mut self.records(), limit).await
    }

    fn attach(&self, wake: Wake) {
        if let Some(notifier) = &self.0.notifier {
            notifier.attach(wake);
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.0.table)
            .field("connections", &self.0.connections)
            .finish_non_exhaustive()
    }
}
