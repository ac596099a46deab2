//! [`SqliteStore`]: records in an SQLite file, for services on one machine.
//!
//! The durable store that needs no server. Any number of processes of the same machine may share the file.
//!
//! # What is guaranteed
//!
//! | failure | what stays |
//! |---|---|
//! | the process is killed | everything that was acknowledged |
//! | the machine loses power | everything that was acknowledged, if the disk honours a flush |
//! | the disk is full | everything that was acknowledged; claims are refused ([`Full`](StoreErrorKind::Full)) until there is room |
//! | the file is moved, deleted or replaced while it is open, as this process sees it (Unix) | no operation is acknowledged ([`Unavailable`](StoreErrorKind::Unavailable)) until the file is put back or the process restarted |
//! | the file is lost | nothing |
//!
//! 1. The file is in WAL mode with `synchronous = FULL`: a commit is acknowledged after it was flushed.
//! 2. One thread writes. The operations that arrive during a flush share the next transaction.
//! 3. The clock is this machine's, read by the writer: the same for all processes that share the file. Setting it back
//!    lengthens leases and ttls, setting it forward shortens them.
//!
//! # Caveats
//!
//! - The file belongs on a local disk: the file locks of network file systems are not reliable enough for SQLite. Where
//!   a network file system invents inode numbers (CIFS with `noserverino`), the file may look replaced, and then no
//!   operation is acknowledged.
//! - Two things are not detected: that the file was overwritten in place, and that another process finds another file
//!   under the same name, as behind a mount in its container. Restore a backup while no process has the file open.
//! - Purging frees room in the file, not on the disk.
//! - Waiters in other processes poll: there is no push.
//!
//! # Example
//!
//! ```no_run
//! use idempotent_runtime::{Idempotency, store::sql::sqlite::SqliteStore};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let store = SqliteStore::connect("sqlite://idempotency.db").await?;
//! let idempotency = Idempotency::builder().store(store).build()?;
//! # Ok(())
//! # }
//! ```

use std::{fmt, path::Path, sync::Arc};

use sqlx::SqlitePool;

use self::{
    open::Settings,
    writer::{Answer, Operation, Writer},
};
use super::{ConnectError, TableName};
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

mod identity;
mod open;
mod records;
mod statements;
mod writer;

const NAME: &str = "sqlite";

/// Keeps records in an SQLite file. See the [module documentation](self).
///
/// Clones share the writer.
#[derive(Clone)]
pub struct SqliteStore {
    writer: Writer,
    file: Arc<Path>,
}

/// Settings of a [`SqliteStore`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct SqliteStoreBuilder {
    settings: Settings,
}

impl SqliteStore {
    /// Opens `sqlite://path/to/file.db` with default settings. Creates the file, readable by its owner only, and the
    /// table, unless the URL says `?mode=rw`.
    ///
    /// # Errors
    ///
    /// If the URL does not name a file, or the file cannot be opened, written to or brought up to date.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(url).await
    }

    /// The default settings.
    pub fn builder() -> SqliteStoreBuilder {
        SqliteStoreBuilder {
            settings: Settings::default(),
        }
    }

    async fn run(&self, operation: Operation) -> Result<Answer, StoreError> {
        self.writer.run(operation).await
    }

    async fn write(&self, operation: Operation) -> Result<Write, StoreError> {
        match self.run(operation).await? {
            Answer::Write(write) => Ok(write),
            _ => Err(unexpected_answer()),
        }
    }
}

impl SqliteStoreBuilder {
    /// The table. `idempotency_records` unless set. SQLite has no schemas.
    pub fn table(mut self, table: TableName) -> Self {
        self.settings.table = table;
        self
    }

    /// Whether opening the file creates the table or brings it up to date. On unless set; if off, a missing table is an
    /// error.
    pub fn migrate(mut self, yes: bool) -> Self {
        self.settings.migrate = yes;
        self
    }

    /// The largest size of the file. At that size new claims are refused with [`StoreErrorKind::Full`] until expired
    /// records are purged. No limit but the disk's unless set.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_bytes = Some(bytes);
        self
    }

    /// Opens `sqlite://path/to/file.db`.
    ///
    /// # Errors
    ///
    /// If the URL does not name a file, or the file cannot be opened, written to or brought up to date.
    pub async fn connect(self, url: &str) -> Result<SqliteStore, ConnectError> {
        let options = open::options(url)?;
        self.open(options).await
    }

    /// Opens the file of the application's own pool, over a separate connection with the pool's settings. The pool's
    /// connections are not used: the writer needs one for itself.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn from_pool(self, pool: &SqlitePool) -> Result<SqliteStore, ConnectError> {
        self.open((*pool.connect_options()).clone()).await
    }

    async fn open(
        self,
        options: sqlx::sqlite::SqliteConnectOptions,
    ) -> Result<SqliteStore, ConnectError> {
        let file = Arc::from(options.get_filename());
        let writer = open::open(options, &self.settings).await?;
        Ok(SqliteStore { writer, file })
    }
}

impl Store for SqliteStore {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        match self.run(Operation::Acquire(claim.clone())).await? {
            Answer::Acquisition(acquisition) => Ok(acquisition),
            _ => Err(unexpected_answer()),
        }
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.write(Operation::Renew(*held)).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.write(Operation::Complete(*held, outcome.clone()))
            .await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.write(Operation::Release(*key, *token)).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.write(Operation::Abandon(*key, *token)).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        match self.run(Operation::Get(*key)).await? {
            Answer::Record(record) => Ok(record),
            _ => Err(unexpected_answer()),
        }
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        match self.run(Operation::Purge(limit)).await? {
            Answer::Purged(purged) => Ok(purged),
            _ => Err(unexpected_answer()),
        }
    }

    /// There is no push: the engine wakes the waiters of its own process, and waiters in other processes poll.
    fn attach(&self, _: Wake) {}
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// The writer answers each operation with its own kind of answer, so this error means a bug in this module.
fn unexpected_answer() -> StoreError {
    StoreError::new(NAME, StoreErrorKind::Unavailable)
        .with_source("the writer sent the answer of another operation: please report this bug")
}
