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
//! # The table
//!
//! [`migrate`](SqlStore::migrate) creates it, in effect so (in braces: names made of the table's):
//!
#![doc = concat!("```sql\n", include_str!("schema.sql"), "```")]
//!
//! and that of the [outbox](crate::outbox) beside it:
//!
#![doc = concat!("```sql\n", include_str!("outbox/table.sql"), "```")]
//!
//! # Partitions
//!
//! A table of many millions of records is easier to maintain in parts. This variant has 16, by a hash of the key:
//!
#![doc = concat!("```sql\n", include_str!("partitioned.sql"), "```")]
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
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, Executor as _, MySql, MySqlConnection, Row as _, SqlStr,
    mysql::{MySqlConnectOptions, MySqlDatabaseError},
};

use self::check::{Variables, check_binary_log, check_server, identity, probe, variables};
use super::{
    ConnectError, SqlStore, SqlStoreBuilder, TableName,
    dialect::{Audit, Dialect, Files},
    error::{Repeat, Verdict, parse},
    operations::Access,
    outbox::OutboxFiles,
    pool::{Connections, is_time_out},
    purge::Batch,
    server::{Server, ServerDialect, Settings},
    setup::{migrate_locked, refused},
    statement::{HELD, Parameter, Placeholder, Syntax, Values},
    statements::Statements,
    transaction::server::{Largest, REST_OF_PACKET},
    watch::Observed,
};
use crate::store::{
    error::{StoreError, StoreErrorKind},
    record::Outcome,
    weakness::Accepted,
};

mod check;
mod transaction;

/// A packet size that is assumed to be accepted without asking the server. The smallest default of any version is
/// 1 MiB; this is less than an operator is likely to set, and more than most responses need.
const PACKET: u64 = 64 << 10;

/// Keeps records in MySQL or MariaDB. See the [module documentation](self).
pub type MySqlStore = SqlStore<MySql>;

/// Settings of a [`MySqlStore`].
pub type MySqlStoreBuilder = SqlStoreBuilder<MySql>;

/// The largest response body that a route may store.
#[derive(Clone, Debug)]
pub(super) struct LargestResponse(u64);

impl Default for LargestResponse {
    fn default() -> Self {
        Self(1 << 20)
    }
}

impl SqlStoreBuilder<MySql> {
    /// The largest response body that a route may store: the largest `max_response`. 1 MiB unless set.
    /// [`check`](MySqlStore::check) verifies that the server accepts packets of this size. A larger response is stored
    /// if the server accepts it, and leaves a tombstone otherwise.
    pub fn largest_response(mut self, bytes: u64) -> Self {
        self.settings.own = LargestResponse(bytes);
        self
    }
}

impl Dialect for MySql {
    const STORE: &'static str = "mysql";
    const SYNTAX: Syntax = Syntax {
        quote: '`',
        placeholder: Placeholder::Question,
        now: "utc_timestamp(6)",
        later: "utc_timestamp(6) + interval (%) microsecond",
        left: "timestampdiff(microsecond, utc_timestamp(6), %)",
        since: "timestampdiff(microsecond, timestamp('1970-01-01'), %)",
        int: "cast(% as signed)",
        held: HELD,
    };
    const FILES: Files = Files {
        claim: include_str!("claim.sql"),
        inline_claim: true,
        lease: Some(include_str!("lease.sql")),
        purge: &[
            include_str!("batch.sql"),
            include_str!("purge.sql"),
            include_str!("move.sql"),
        ],
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
            claimed: Some(include_str!("outbox/claimed.sql")),
            purge: include_str!("../shared/outbox/purge.sql"),
        },
    };
    const MIGRATES: bool = false;

    type Backend = Server<Self>;
    type Settings = Settings<LargestResponse>;
    type Options = MySqlConnectOptions;

    fn accepted(settings: &mut Settings<LargestResponse>) -> &mut Accepted {
        &mut settings.accepted
    }

    fn options(url: &str) -> Result<MySqlConnectOptions, ConnectError> {
        let expected = "mysql://user:password@host:port/database";
        // The scheme of MariaDB's own clients.
        let url = url
            .strip_prefix("mariadb:")
            .map_or_else(|| url.to_owned(), |rest| format!("mysql:{rest}"));
        let options: MySqlConnectOptions = parse(&url, &["mysql"], expected)?;
        if options.get_database().is_none_or(str::is_empty) {
            let source = sqlx::Error::Configuration("it names no database".into());
            return Err(ConnectError::Url { expected, source });
        }
        Ok(sqlx::ConnectOptions::disable_statement_logging(options))
    }

    async fn open(
        options: MySqlConnectOptions,
        table: &TableName,
        migrate: bool,
        settings: &Settings<LargestResponse>,
    ) -> Result<Server<Self>, ConnectError> {
        Server::open(options, table, migrate, settings).await
    }

    fn classify(error: &sqlx::Error) -> Verdict {
        classify(error)
    }

    async fn purge<A: Access<Self>>(
        access: &mut A,
        statements: &Statements,
        values: &Values<'_>,
        limit: i64,
    ) -> Result<Batch, sqlx::Error> {
        let [batch, purge, move_on] = &statements.purge[..] else {
            return Err(sqlx::Error::RowNotFound);
        };
        // A `delete` cannot return what it looked at.
        let rows = access.fetch(batch, values).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let (seen, last, present): (i64, Option<i64>, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let purged = access.execute(purge, values).await?;
        let purged = i64::try_from(purged).unwrap_or(i64::MAX);
        if purged < seen {
            access.execute(move_on, values).await?;
        }
        let full = last.filter(|_| seen >= limit);
        Ok(Batch {
            purged,
            seen,
            until: full.unwrap_or(present),
        })
    }

    const LOCKS_RECORDS: bool = true;

    /// An `insert ignore` waits for a record that a completion has locked.
    const CLAIMS_WAIT: bool = true;

    fn is_locked(error: &sqlx::Error) -> bool {
        matches!(number(error), Some(1205 | 3572))
    }

    fn took_too_long(error: &sqlx::Error) -> bool {
        // MariaDB's `max_statement_time`; MySQL's `max_execution_time`, which an application's pool may set.
        is_time_out(error) || matches!(number(error), Some(1969 | 3024))
    }

    /// A wrong password or an unknown user; an unknown database, or one that the user may not use.
    fn is_denial(error: &sqlx::Error) -> bool {
        matches!(number(error), Some(1044 | 1045 | 1049 | 1130 | 1698))
    }
}

impl ServerDialect for MySql {
    type OwnSettings = LargestResponse;
    /// The largest packet that the server accepts; [`PACKET`] until the server was asked. No other memory depends on it,
    /// so it needs no ordering.
    type Own = Arc<AtomicU64>;

    fn own(_: &Settings<LargestResponse>, _: &Connections<Self>, _: &TableName) -> Arc<AtomicU64> {
        Arc::new(AtomicU64::new(PACKET))
    }

    fn largest_message(own: &Arc<AtomicU64>) -> Largest {
        Some(Arc::clone(own))
    }

    async fn set_up(
        connection: &mut MySqlConnection,
        time_out: Duration,
    ) -> Result<(), sqlx::Error> {
        let session = Self::SYNTAX.statement(include_str!("session.sql"), &TableName::default());
        let session = session.inlined(&Values::new().int(Parameter::Limit, seconds(time_out)));
        // A number is all that was inserted.
        connection.execute(AssertSqlSafe(session)).await?;
        Ok(())
    }

    fn is_ended_by(error: &sqlx::Error) -> bool {
        // Also the errors of the connection itself, after which the server closes it.
        matches!(number(error), Some(1152..=1161 | 1927)) || classify(error).repeat == Repeat::Ended
    }

    const QUESTIONS: (Option<&'static str>, &'static str) = (
        None,
        concat!(
            include_str!("variables.sql"),
            ";\n",
            include_str!("made.sql")
        ),
    );

    async fn observe(
        connection: &mut MySqlConnection,
        questions: SqlStr,
    ) -> Result<Observed, sqlx::Error> {
        let mut variables = Variables::new();
        let mut table = None;
        for row in connection.fetch_all(questions).await? {
            if row.len() == 2 {
                variables.insert(row.try_get(0)?, row.try_get(1)?);
            } else {
                table = row.try_get(0)?;
            }
        }
        Ok(Observed {
            probe: probe(&variables),
            server: identity(&variables),
            table,
        })
    }

    async fn check(
        server: &Server<Self>,
        connection: &mut MySqlConnection,
    ) -> Result<(), ConnectError> {
        let refused = refused::<Self>("report its settings");
        let settings = connection.fetch_one(SERVER).await.map_err(&refused)?;
        let packet = check_server(&settings, server.settings.own.0)?;
        let variables = variables(connection).await.map_err(refused)?;
        check_binary_log(&variables)?;
        server.own.store(packet, Ordering::Relaxed);
        Ok(())
    }

    /// Under a lock: concurrent migrations wait for each other. A failure in the middle leaves a table of an earlier
    /// version, and the lock until the end of the session.
    async fn migrate(
        server: &Server<Self>,
        connection: &mut MySqlConnection,
    ) -> Result<Option<i64>, sqlx::Error> {
        let lock = Self::SYNTAX.statement(include_str!("lock.sql"), &server.table);
        let rows = connection.fetch_all(lock.sql).await?;
        let locked: i64 = rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        if locked != 1 {
            return Err(sqlx::Error::Protocol(
                "another process has held the migration lock for ten seconds: try again when it has finished".into(),
            ));
        }
        // The session ends after the migration, and the lock with it.
        migrate_locked::<Self>(connection, &server.statements).await
    }

    /// Checks that the outcome fits in one packet. The server would close the connection over a larger one, which looks
    /// like an unreachable server and would be repeated for long.
    async fn accepts(server: &Server<Self>, outcome: &Outcome) -> Result<(), StoreError> {
        let Outcome::Response(response) = outcome else {
            return Ok(());
        };
        let bytes = response.as_bytes().len() as u64;
        let packet = &server.own;
        if bytes + REST_OF_PACKET <= packet.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The server was not asked yet, or its setting may have changed since.
        let max = match packet_of(server).await {
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
        if bytes + REST_OF_PACKET <= max {
            return Ok(());
        }
        let error = StoreError::new(Self::STORE, StoreErrorKind::TooLarge);
        Err(error.with_source(format!(
            "the response has {bytes} bytes and the server's max_allowed_packet is {max}: raise it, or lower the \
             route's `max_response`"
        )))
    }
}

const SERVER: &str = include_str!("server.sql");
/// The largest packet that the server accepts, in bytes.
async fn packet_of(server: &Server<MySql>) -> Result<u64, sqlx::Error> {
    let statement = MySql::SYNTAX.statement(include_str!("packet.sql"), &server.table);
    let rows = (&server.connections)
        .fetch(&statement, &Values::new())
        .await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
}

/// In the unit and range of the server's settings, where zero means no limit and a year is the maximum.
fn seconds(limit: Duration) -> i64 {
    const YEAR: i64 = 365 * 24 * 60 * 60;
    i64::try_from(limit.as_secs()).map_or(YEAR, |seconds| seconds.clamp(1, YEAR))
}

/// The meaning of an error by its number. MySQL and MariaDB share the numbers that matter here.
fn classify(error: &sqlx::Error) -> Verdict {
    match number(error) {
        None => Verdict::of_client_error(error),
        // A deadlock; a record that changed since it was read; a commit that a cluster rolled back.
        Some(1213 | 1020 | 3101) => Verdict::repeated(Repeat::Raced),
        // The server is shutting down, has become a replica, is a cluster node that is not ready, or ended an idle
        // session; or a prepared statement of this session is gone, as after a change of servers behind a proxy.
        // Another connection may work.
        Some(1053 | 1290 | 1836 | 1047 | 4031 | 1243 | 1615) => Verdict::repeated(Repeat::Ended),
        // A proxy lost its server, and the statement may have run.
        Some(1927) => Verdict::repeated(Repeat::Lost),
        // The disk or the table is full.
        Some(1021 | 1114) => Verdict::lasting(StoreErrorKind::Full),
        Some(1194 | 1195 | 1712) => Verdict::lasting(StoreErrorKind::Corrupt),
        // The packet is too large; a value does not fit its column.
        Some(1153 | 1406) => Verdict::lasting(StoreErrorKind::TooLarge),
        // An unknown database, table or column; a missing permission; a binary log that does not accept such writes.
        // Not 1044 and 1045, which a new connection gets while passwords rotate, and which pass.
        Some(1046 | 1049 | 1054 | 1064 | 1142..=1143 | 1146 | 1227 | 1264 | 1665) => {
            Verdict::lasting(StoreErrorKind::Refused)
        }
        Some(_) => Verdict::lasting(StoreErrorKind::Unavailable),
    }
}

fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_never_unlimited_and_in_range() {
        assert_eq!(seconds(Duration::ZERO), 1);
        assert_eq!(seconds(Duration::from_millis(999)), 1);
        assert_eq!(seconds(Duration::from_secs(2)), 2);
        assert_eq!(seconds(Duration::MAX), 31_536_000);
    }
}
