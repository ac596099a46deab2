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
//! 1. Every operation is committed by itself, under `read committed`. An acquire is one round trip whether it wins
//!    or not; it takes a second one to take a record over.
//! 2. Who owns a record is told by the token that is read back, never by a number of affected rows.
//! 3. The clock is the server's `utc_timestamp(6)`. The time zone of the session does not matter.
//! 4. When it connects, the store checks that the server flushes each commit, is not read-only, and takes packets
//!    as large as the largest response.
//!
//! # Caveats
//!
//! - Galera with several writers is not supported: it loses updates even without a fault. Write to one node.
//! - Keep a binary log (`log_bin`, with `sync_binlog = 1`; MySQL 8 has one unless told otherwise, MariaDB has none). A
//!   server without one shows a commit to other sessions a moment before it is on disk. If that server dies within
//!   this moment, and the process that executed dies before it has repeated its completion, a replay that was answered
//!   in between is taken back: later requests get `outcome_unknown`, or execute again with `on_crash = "retry"`.
//!   The store logs a warning of it at start.
//! - The application's own pool may have sessions under `repeatable read`. Then gap locks undo a statement now and
//!   then, and the store repeats it.
//!
//! # TLS
//!
//! Feature `sql-tls`. `ssl-mode=verify_identity` in the URL demands it and checks the server's certificate against the
//! system's, or those in the file that the environment variable `SSL_CERT_FILE` names. The driver's default,
//! `ssl-mode=preferred`, takes any certificate and goes on without TLS where the server has none: name a mode wherever
//! the network is not your own.
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
    setup::Demands,
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

/// A packet that the server takes without being asked. The least that any version takes unless it is told otherwise is
/// 1 MiB; this is below what somebody might tell it, and above most responses.
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
    demands: Demands,
    /// The largest packet that the server takes; until it was asked, one that it takes anyway.
    packet: AtomicU64,
    cursor: Cursor,
}

/// Says how a [`MySqlStore`] keeps its records.
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
    /// Connects to `mysql://user:password@host:port/database` with default settings, and checks server and
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

    /// Makes the table, or brings it up to date. Many processes may do so at once.
    ///
    /// # Errors
    ///
    /// If the server refuses, for want of a database or a permission.
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
            demands,
            packet,
            cursor: _,
        } = &*self.0;
        let takes = setup::check(connections, statements, table, demands).await?;
        // It goes with nothing else, so that no order is needed.
        packet.store(takes, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the server takes this outcome in one packet. It would answer a larger one by closing the connection,
    /// which looks like a server that is away and would be repeated for long.
    async fn takes(&self, outcome: &Outcome) -> Result<(), StoreError> {
        /// Besides the response: key, token, numbers and the head of the packet.
        const REST: u64 = 1 << 10;
        let Outcome::Response(response) = outcome else {
            return Ok(());
        };
        let bytes = response.as_bytes().len() as u64;
        let packet = &self.0.packet;
        if bytes + REST <= packet.load(Ordering::Relaxed) {
            return Ok(());
        }
        // It was never asked, or may have been told otherwise since.
        let most = match self.records().packet().await {
            Ok(most) => most,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the server did not say how large a packet it takes: the statement will find out"
                );
                return Ok(());
            }
        };
        packet.store(most, Ordering::Relaxed);
        if bytes + REST <= most {
            return Ok(());
        }
        let error = StoreError::new(NAME, StoreErrorKind::TooLarge);
        Err(error.with_source(format!(
            "the response has {bytes} bytes, and the server's max_allowed_packet is {most}"
        )))
    }

    /// Closes the store's own connections. Operations that come later fail. An application's pool stays open, and goes on
    /// serving them.
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
    /// The table, with its database if it is not the URL's. `idempotency_records` unless set.
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

    /// After how long the server gives up on a statement (MariaDB) or on a lock (MySQL), in whole seconds, at least one
    /// and a year at most. 2 seconds unless set, as long as an engine waits for its store by default. After twice as
    /// long, and not before a second, the store gives up on the server: that is all that limits statements of an
    /// application's own pool. No less than a millisecond, which [`connect`](Self::connect) refuses.
    pub fn time_out(mut self, time_out: Duration) -> Self {
        self.time_out = time_out;
        self
    }

    /// The largest body of a response that a route may store: the largest `max_response`. 1 MiB unless set. The server
    /// must take packets of this size. A larger response is stored if the server takes it; else it leaves a tombstone.
    pub fn largest_response(mut self, bytes: u64) -> Self {
        self.largest_response = bytes;
        self
    }

    /// Accepts a server that does not flush each commit. After a crash of the server or its machine, keys that were
    /// acknowledged may be free again, and their requests execute a second time.
    pub fn accept_weaker_durability(mut self) -> Self {
        self.weak = true;
        self
    }

    /// Connects to `mysql://user:password@host:port/database`, makes the table if it was told to, and
    /// [checks](MySqlStore::check).
    ///
    /// # Errors
    ///
    /// If the URL or the time-out is wrong, the server cannot be reached, refuses or is not durable, or the table is
    /// missing or of another version.
    pub async fn connect(self, url: &str) -> Result<MySqlStore, ConnectError> {
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

    /// Uses the application's own pool. Asks the server nothing: call [`migrate`](MySqlStore::migrate) and
    /// [`check`](MySqlStore::check) when it suits. A connection that the pool has to make for the store has 5 seconds
    /// at most.
    #[must_use]
    pub fn from_pool(self, pool: MySqlPool) -> MySqlStore {
        let connections = Connections::of_application(pool, self.time_out);
        self.over(connections)
    }

    fn over(self, connections: Connections<MySql, Session>) -> MySqlStore {
        let statements = Statements::new(&self.table);
        let demands = Demands {
            largest_response: self.largest_response,
            durable: !self.weak,
        };
        MySqlStore(Arc::new(Inner {
            connections,
            statements,
            table: self.table,
            demands,
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
        self.takes(outcome).await?;
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
