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

use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{Sqlite, SqliteConnection, SqlitePool, sqlite::SqliteConnectOptions};

use self::{open::Settings, writer::Writer};
use super::{
    ConnectError, SqlStore, SqlStoreBuilder, TableName,
    dialect::{Audit, Dialect, Driver as _, Files},
    error::Verdict,
    operations::Access,
    outbox::OutboxFiles,
    purge::Batch,
    row::micros,
    statement::{Placeholder, Statement, Syntax, Values},
    statements::Statements,
};
use crate::store::{error::StoreErrorKind, weakness::Accepted};

mod backend;
mod identity;
mod open;
mod reader;
mod transaction;
mod writer;

/// Keeps records in an SQLite file. See the [module documentation](self).
pub type SqliteStore = SqlStore<Sqlite>;

/// Settings of a [`SqliteStore`].
pub type SqliteStoreBuilder = SqlStoreBuilder<Sqlite>;

impl SqlStoreBuilder<Sqlite> {
    /// The largest size of the file. At that size new claims are refused with [`StoreErrorKind::Full`] until expired
    /// records are purged. No limit but the disk's unless set.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_bytes = Some(bytes);
        self
    }

    /// Opens the file of the application's own pool, over a separate connection with the pool's settings. The pool's
    /// connections are not used: the writer needs one for itself. Its hooks, as `after_connect`, are not run, because a
    /// pool does not reveal them: set pragmas in its options.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn from_pool(self, pool: &SqlitePool) -> Result<SqliteStore, ConnectError> {
        self.open((*pool.connect_options()).clone()).await
    }
}

impl Dialect for Sqlite {
    const STORE: &'static str = "sqlite";
    const SYNTAX: Syntax = Syntax {
        quote: '"',
        placeholder: Placeholder::Numbered,
        now: "{clock}",
        later: "{clock} + %",
        // A column has any type in SQLite: a time that is no number is not one that this crate stored.
        left: "case when typeof(%) = 'integer' then % - {clock} else % end",
        since: "%",
        int: "%",
        // A damaged row is left as it is, and reading it says so.
        held: "store_key = {key} and token = {token} and state = 0 and typeof(attempt) = 'integer' and attempt between 0 and 4294967295 \
            and typeof(lease_until) = 'integer' and typeof(expires_at) = 'integer' \
            and typeof(fingerprint) = 'blob' and length(fingerprint) = 32",
    };
    const FILES: Files = Files {
        claim: include_str!("claim.sql"),
        inline_claim: false,
        lease: None,
        purge: &[include_str!("purge.sql"), include_str!("move.sql")],
        append_step: include_str!("append_step.sql"),
        tables: include_str!("tables.sql"),
        versions: include_str!("versions.sql"),
        schema: include_str!("schema.sql"),
        upgrade: include_str!("upgrade.sql"),
        upgrade_steps: include_str!("upgrade_steps.sql"),
        upgrade_versions: include_str!("upgrade_versions.sql"),
        migrated: include_str!("migrated.sql"),
        audit: Audit {
            table: include_str!("audit/table.sql"),
            append: include_str!("audit/append.sql"),
            events: include_str!("audit/events.sql"),
        },
        outbox: OutboxFiles {
            table: include_str!("outbox/table.sql"),
            claim: include_str!("outbox/claim.sql"),
            claimed: None,
            purge: include_str!("../shared/outbox/purge.sql"),
        },
    };
    /// There is no right to change the schema that a user of the file could lack.
    const MIGRATES: bool = true;

    type Backend = Writer;
    type Settings = Settings;
    type Options = SqliteConnectOptions;

    fn accepted(settings: &mut Settings) -> &mut Accepted {
        &mut settings.accepted
    }

    fn options(url: &str) -> Result<SqliteConnectOptions, ConnectError> {
        open::options(url)
    }

    async fn open(
        options: SqliteConnectOptions,
        table: &TableName,
        migrate: bool,
        settings: &Settings,
    ) -> Result<Writer, ConnectError> {
        open::open(options, table, migrate, settings).await
    }

    fn classify(error: &sqlx::Error) -> Verdict {
        classify(error)
    }

    async fn purge<A: Access<Self>>(
        access: &mut A,
        statements: &Statements,
        values: &Values<'_>,
        _: i64,
    ) -> Result<Batch, sqlx::Error> {
        let [purge, move_on] = &statements.purge[..] else {
            return Err(sqlx::Error::RowNotFound);
        };
        let purged = access.execute(purge, values).await?;
        let moved = access.execute(move_on, values).await?;
        let count = |rows| i64::try_from(rows).unwrap_or(i64::MAX);
        Ok(Batch {
            purged: count(purged),
            seen: count(purged + moved),
            // Deleted rows leave the index at once.
            until: 0,
        })
    }

    const LOCKS_RECORDS: bool = false;

    const CLAIMS_WAIT: bool = false;

    /// The lock is that of the whole file, and the writer waits for it before a statement.
    fn is_locked(_: &sqlx::Error) -> bool {
        false
    }

    fn took_too_long(_: &sqlx::Error) -> bool {
        false
    }

    fn is_denial(_: &sqlx::Error) -> bool {
        false
    }
}

impl Access<Sqlite> for &mut SqliteConnection {
    async fn fetch(
        &mut self,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<Vec<sqlx::sqlite::SqliteRow>, sqlx::Error> {
        Sqlite::fetch(self, statement, values).await
    }

    async fn execute(
        &mut self,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<u64, sqlx::Error> {
        Sqlite::execute(self, statement, values).await
    }

    fn connections(&self) -> usize {
        0
    }
}

/// The machine's time, uncorrected: all processes that share the file have to agree on it, so none may keep its own. If
/// the clock is set back, leases and records live longer; the tokens still fence.
fn now() -> i64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    micros(since_1970)
}

/// The meaning of an error of SQLite. None is repeated here: the busy time-out has waited already.
fn classify(error: &sqlx::Error) -> Verdict {
    // The primary codes of <https://www.sqlite.org/rescode.html>; the extended ones carry them in the low byte.
    const CORRUPT: u32 = 11;
    const FULL: u32 = 13;
    const NOT_A_DATABASE: u32 = 26;
    const TOO_LARGE: u32 = 18;
    const REFUSED: [u32; 5] = [1, 3, 8, 19, 20];
    Verdict::lasting(match primary_code(error) {
        Some(FULL) => StoreErrorKind::Full,
        Some(TOO_LARGE) => StoreErrorKind::TooLarge,
        Some(CORRUPT | NOT_A_DATABASE) => StoreErrorKind::Corrupt,
        Some(code) if REFUSED.contains(&code) => StoreErrorKind::Refused,
        Some(_) => StoreErrorKind::Unavailable,
        None => return Verdict::of_client_error(error),
    })
}

fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<u32>().ok().map(|code| code & 0xff)
}
