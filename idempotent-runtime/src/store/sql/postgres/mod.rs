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
//!    trip whether it wins or not; if the record changes in the middle of it, it is asked again.
//! 2. A replay writes nothing, so that it waits for no flush.
//! 3. The clock is the server's `clock_timestamp()`.
//! 4. The store's own sessions are set to commit durably, also where the server's default is not to, and
//!    to give up on statements after [`time_out`](PostgresStoreBuilder::time_out).
//!
//! # The application's own pool
//!
//! [`from_pool`](PostgresStoreBuilder::from_pool) takes it. Its sessions are the application's, so that
//! [`check`](PostgresStore::check) looks how they are set. A pool of sqlx asks the server with every return of a
//! connection whether it is still there, and unless it has `test_before_acquire(false)`, with every loan too:
//! the store's own connections cost less.
//!
//! Through a pooler of transactions, such as PgBouncer, settings of a session reach other clients too. Take an
//! application's pool there, with the settings on its database user, and a pooler that knows prepared statements.
//!
//! # Waking waiters
//!
//! Requests in other processes that wait for an execution poll. With
//! [`notify`](PostgresStoreBuilder::notify) each process also listens, and is woken by the completion. The
//! notifications are sent after the completion was acknowledged, many in one statement: sent with it, they
//! halve the number of commits, because PostgreSQL commits them one at a time.
//!
//! # TLS
//!
//! Feature `sql-tls`. `sslmode=verify-full` in the URL demands it and checks the server's certificate against the
//! system's, or those in the file that the environment variable `SSL_CERT_FILE` names. The driver's default,
//! `sslmode=prefer`, takes any certificate and goes on without TLS where the server has none: name a mode wherever
//! the network is not your own.
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
    notify::Bell,
    records::{Remote, Session},
    statements::Statements,
};
use super::{
    ConnectError, TableName,
    error::enough,
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
    /// Whether a server must keep what it acknowledged.
    durable: bool,
    bell: Option<Bell>,
    cursor: Cursor,
}

/// Says how a [`PostgresStore`] keeps its records.
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
    /// Connects to `postgres://user:password@host:port/database` with default settings, and checks server and
    /// table. The table must be there.
    ///
    /// # Errors
    ///
    /// If the URL is wrong, the server cannot be reached, refuses or is not durable, or the table is missing or of
    /// another version.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(url).await
    }

    /// Starts from the default settings.
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

    /// Makes the table, or brings it up to date. Many processes may do so at once.
    ///
    /// # Errors
    ///
    /// If the server refuses, for want of a schema or a permission; then nothing has changed.
    pub async fn migrate(&self) -> Result<(), ConnectError> {
        setup::migrate(&self.0.connections, &self.0.statements, &self.0.table).await
    }

    /// Checks that the server keeps what it acknowledges, and that the table is there and of this version.
    ///
    /// # Errors
    ///
    /// If not.
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

    /// Closes the store's own connections, the one that listens among them. Operations that come later fail. An application's
    /// pool stays open, and goes on serving them.
    pub async fn close(&self) {
        self.0.connections.close().await;
    }

    /// A write that those who wait for the record want to know of.
    async fn change(&self, change: Change<'_>) -> Result<Write, StoreError> {
        let key = *change.key();
        let write = operations::write(&mut self.records(), change).await?;
        if let (Write::Applied, Some(bell)) = (write, &self.0.bell) {
            bell.ring(&key);
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
    /// The table, with its schema if the search path should not decide. `idempotency_records` unless set.
    pub fn table(mut self, table: TableName) -> Self {
        self.table = table;
        self
    }

    /// Whether [`connect`](Self::connect) makes the table or brings it up to date. Off unless set: a service that
    /// serves requests should not need the right to change the schema.
    pub fn migrate(mut self, yes: bool) -> Self {
        self.migrate = yes;
        self
    }

    /// The largest number of connections. 10 unless set. Each has 5 seconds at most to be made, and serves the next
    /// statement if that for which it was begun did not wait so long.
    pub fn connections(mut self, most: usize) -> Self {
        self.connections = most;
        self
    }

    /// After how long the server gives up on a statement (half of it on a lock). 2 seconds unless set, as long as
    /// an engine waits for its store by default. After twice as long, and not before a second, the store
    /// gives up on the server: that is all that limits statements of an application's own pool. No less than a
    /// millisecond, which [`connect`](Self::connect) refuses; the server counts to 24 days.
    pub fn time_out(mut self, time_out: Duration) -> Self {
        self.time_out = time_out;
        self
    }

    /// Whether waiters in other processes are woken by LISTEN and NOTIFY. Off unless set: see
    /// [Waking waiters](self#waking-waiters). It takes one more connection, which is none of an application's pool,
    /// but made as those are, with the pool's options of that moment. After a server that did not answer at all it is
    /// made again in half a minute to one and a half; waiters poll meanwhile.
    pub fn notify(mut self, yes: bool) -> Self {
        self.notify = yes;
        self
    }

    /// Accepts a server that does not wait for its disk, or says so: Neon runs with `fsync = off`, because its storage
    /// keeps what is committed elsewhere. After a crash, keys that were acknowledged may be free again,
    /// and their requests execute a second time.
    pub fn accept_weaker_durability(mut self) -> Self {
        self.weak = true;
        self
    }

    /// Connects to `postgres://user:password@host:port/database`, makes the table if it was told to, and
    /// [checks](PostgresStore::check).
    ///
    /// # Errors
    ///
    /// If the URL or the time-out is wrong, the server cannot be reached, refuses or is not durable, or the table is
    /// missing or of another version.
    pub async fn connect(self, url: &str) -> Result<PostgresStore, ConnectError> {
        enough(self.time_out)?;
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

    /// Uses the application's own pool. Asks the server nothing: call [`migrate`](PostgresStore::migrate) and
    /// [`check`](PostgresStore::check) when it suits. A connection that the pool has to make for the store has 5 seconds
    /// at most.
    #[must_use]
    pub fn from_pool(self, pool: PgPool) -> PostgresStore {
        let connections = Connections::of_application(pool, self.time_out);
        self.over(connections)
    }

    fn over(self, connections: Connections<Postgres, Session>) -> PostgresStore {
        let statements = Statements::new(&self.table);
        let bell = self
            .notify
            .then(|| Bell::new(connections.clone(), &self.table));
        PostgresStore(Arc::new(Inner {
            connections,
            statements,
            table: self.table,
            durable: !self.weak,
            bell,
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
        if let Some(bell) = &self.0.bell {
            bell.attach(wake);
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
