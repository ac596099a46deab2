//! [`MySqlStore`]: records in a table of MySQL or MariaDB.
//!
//! # What is guaranteed
//!
//! | failure | what stays |
//! |---|---|
//! | a process of the service is killed | everything |
//! | the server is killed, or its machine | everything that was acknowledged, with `innodb_flush_log_at_trx_commit = 1` and, where there is a binary log, `sync_binlog = 1`: checked at start; without a binary log, not every replay of the last moment (see below) |
//! | failover to a replica | what had reached the replica: with semi-synchronous replication everything, without it not the last moments |
//! | the network loses a reply | everything: the operation is repeated with the same token |
//!
//! 1. Every statement is committed by itself, under `read committed`. An acquire is one round trip whether it succeeds
//!    or not; taking a record over needs a second one.
//! 2. The token that is read back decides who owns a record, never a number of affected rows.
//! 3. The clock is the server's `utc_timestamp(6)`. The time zone of the session does not matter.
//! 4. When it connects, the store checks that the server flushes each commit, is not read-only, and accepts packets as
//!    large as the largest response.
//!
//! # Caveats
//!
//! - Galera with several writers is not supported: it loses updates even without a fault. Write to one node.
//! - Keep a binary log (`log_bin`, with `sync_binlog = 1`; MySQL 8 has one by default, MariaDB has none). A server
//!   without one shows a commit to other sessions a moment before it is on disk. If that server crashes within this
//!   moment, and the process that executed dies before it has repeated its completion, a replay that was answered in
//!   between is taken back: later requests get `outcome_unknown`, or execute again with `on_crash = "retry"`. The store
//!   logs a warning about such a server when it connects.
//! - The sessions of an application's own pool may be under `repeatable read`. Then gap locks roll a statement back now
//!   and then, and the store repeats it.
//!
//! # TLS
//!
//! Feature `sql-tls`. `ssl-mode=verify_identity` in the URL requires TLS and checks the server's certificate against
//! the system's root certificates, or those in the file that the environment variable `SSL_CERT_FILE` names. The
//! driver's default, `ssl-mode=preferred`, accepts any certificate and continues without TLS if the server has none:
//! set a mode unless the network is your own.
//!
//! # Example
//!
//! ```no_run
//! use idempotent_runtime::{Idempotency, store::sql::mysql::MySqlStore};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MySqlStore::builder()
//!     .migrate(true)
//!     .connect("mysql://app:secret@db.internal/shop")
//!     .await?;
//! let idempotency = Idempotency::builder().store(store).build()?;
//! # Ok(())
//! # }
//! ```

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{MySql, MySqlPool};

use self::{
    records::{Remote, Session},
    setup::Requirements,
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
        error::{StoreError, StoreErrorKind},
        record::{Acquisition, Claim, Held, Outcome, Record, Write},
        token::Token,
        wake::Wake,
    },
};

mod records;
mod setup;
mod statements;

const NAME: &str = "mysql";

/// A packet size that is assumed to be accepted without asking the server. The smallest default of any version is
/// 1 MiB; this is less than an operator is likely to set, and more than most responses need.
const PACKET: u64 = 64 << 10;

/// Keeps records in MySQL or MariaDB. See the [module documentation](self).
///
/// Clones share the connections.
#[derive(Clone)]
pub struct MySqlStore(Arc<Inner>);

struct Inner {
    connections: Connections<MySql, Session>,
    statements: Statements,
    table: TableName,
    requirements: Requirements,
    /// The largest packet that the server accepts; [`PACKET`] until the server was asked.
    packet: AtomicU64,
    cursor: Cursor,
}

/// Settings of a [`MySqlStore`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct MySqlStoreBuilder {
    table: TableName,
    migrate: bool,
    connections: usize,
    time_out: Duration,
    largest_response: u64,
    weak: bool,
}

impl MySqlStore {
    /// Connects to `mysql://user:password@host:port/database` with default settings, and checks server and table. The
    /// table must exist.
    ///
    /// # Errors
    ///
    /// If the URL is wrong, the server cannot be reached, refuses or is not durable, or the table is missing or has
    /// another version.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(url).await
    }

    /// The default settings.
    pub fn builder() -> MySqlStoreBuilder {
        MySqlStoreBuilder {
            table: TableName::default(),
            migrate: false,
            connections: 10,
            time_out: Duration::from_secs(2),
            largest_response: 1 << 20,
            weak: false,
        }
    }

    /// Creates the table or brings it up to date. Many processes may do so at once.
    ///
    /// # Errors
    ///
    /// If the server refuses, because the database does not exist or the user lacks the permission.
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
            requirements,
            packet,
            cursor: _,
        } = &*self.0;
        let found = setup::check(connections, statements, table, requirements).await?;
        // No other memory depends on it, so it needs no ordering.
        packet.store(found, Ordering::Relaxed);
        Ok(())
    }

    /// Checks that the outcome fits in one packet. The server would close the connection over a larger one, which looks
    /// like an unreachable server and would be repeated for long.
    async fn check_size(&self, outcome: &Outcome) -> Result<(), StoreError> {
        /// The size of the rest of the packet: key, token, numbers and header.
        const REST: u64 = 1 << 10;
        let Outcome::Response(response) = outcome else {
            return Ok(());
        };
        let bytes = response.as_bytes().len() as u64;
        let packet = &self.0.packet;
        if bytes + REST <= packet.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The server was not asked yet, or its setting may have changed since.
        let max = match self.records().packet().await {
            Ok(max) => max,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the server's max_allowed_packet could not be read: the statement is tried"
                );
                return Ok(());
            }
        };
        packet.store(max, Ordering::Relaxed);
        if bytes + REST <= max {
            return Ok(());
        }
        let error = StoreError::new(NAME, StoreErrorKind::TooLarge);
        Err(error.with_source(format!(
            "the response has {bytes} bytes and the server's max_allowed_packet is {max}: raise it, or lower the \
             route's `max_response`"
        )))
    }

    /// Closes the store's own connections. Later operations fail. An application's pool stays open and goes on serving
    /// operations.
    pub async fn close(&self) {
        self.0.connections.close().await;
    }

    fn records(&self) -> Remote<'_> {
        Remote {
            connections: &self.0.connections,
            statements: &self.0.statements,
            cursor: &self.0.cursor,
        }
    }
}

impl MySqlStoreBuilder {
    /// The table, with a database if it is not the URL's. `idempotency_records` unless set.
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

    /// The time after which the server cancels a statement (MariaDB) or a wait for a lock (MySQL), in whole seconds, at
    /// least one and at most a year. 2 seconds unless set, like the engine's store time-out. After twice the time, and
    /// at least a second, the store gives up on the server; that is the only limit for statements of an application's
    /// own pool. [`connect`](Self::connect) refuses less than a millisecond.
    pub fn time_out(mut self, time_out: Duration) -> Self {
        self.time_out = time_out;
        self
    }

    /// The largest response body that a route may store: the largest `max_response`. 1 MiB unless set.
    /// [`check`](MySqlStore::check) verifies that the server accepts packets of this size. A larger response is stored
    /// if the server accepts it, and leaves a tombstone otherwise.
    pub fn largest_response(mut self, bytes: u64) -> Self {
        self.largest_response = bytes;
        self
    }

    /// Accepts a server that does not flush each commit. After a crash of the server or its machine, acknowledged keys
    /// may be free again, and their requests execute a second time.
    pub fn accept_weaker_durability(mut self) -> Self {
        self.weak = true;
        self
    }

    /// Connects to `mysql://user:password@host:port/database`, migrates if that is [set](Self::migrate), and
    /// [checks](MySqlStore::check) server and table.
    ///
    /// # Errors
    ///
    /// If the URL or the time-out is wrong, the server cannot be reached, refuses or is not durable, or the table is
    /// missing or has another version.
    pub async fn connect(self, url: &str) -> Result<MySqlStore, ConnectError> {
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

    /// Uses the application's own pool. Sends nothing to the server: call [`migrate`](MySqlStore::migrate) and
    /// [`check`](MySqlStore::check) yourself. If the pool has to make a connection for the store, that may take 5
    /// seconds at most.
    #[must_use]
    pub fn from_pool(self, pool: MySqlPool) -> MySqlStore {
        let connections = Connections::of_application(pool, self.time_out);
        self.over(connections)
    }

    fn over(self, connections: Connections<MySql, Session>) -> MySqlStore {
        let statements = Statements::new(&self.table);
        let requirements = Requirements {
            largest_response: self.largest_response,
            durable: !self.weak,
        };
        MySqlStore(Arc::new(Inner {
            connections,
            statements,
            table: self.table,
            requirements,
            packet: AtomicU64::new(PACKET),
            cursor: Cursor::default(),
        }))
    }
}

impl Store for MySqlStore {
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
        self.check_size(outcome).await?;
        operations::write(&mut self.records(), Change::Complete(held, outcome)).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        operations::write(&mut self.records(), Change::Release(key, token)).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        operations::write(&mut self.records(), Change::Abandon(key, token)).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        operations::get(&mut self.records(), key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        operations::purge(&mut self.records(), limit).await
    }

    fn attach(&self, _: Wake) {}
}

impl fmt::Debug for MySqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlStore")
            .field("table", &self.0.table)
            .field("connections", &self.0.connections)
            .finish_non_exhaustive()
    }
}
