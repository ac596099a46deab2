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

use std::{borrow::Cow, time::Duration};

use sqlx::{
    Connection as _, Executor as _, PgConnection, Postgres, Row as _, SqlStr,
    postgres::{PgConnectOptions, PgDatabaseError, PgRow, PgSeverity},
};

use self::notify::Notifier;
use super::{
    ConnectError, SqlStore, SqlStoreBuilder, TableName,
    dialect::{Audit, Dialect, Driver as _, Files},
    error::{Repeat, Verdict, parse},
    operations::Access,
    outbox::OutboxFiles,
    pool::{Connections, is_time_out},
    probe::Probe,
    purge::Batch,
    server::{Server, ServerDialect, Settings},
    setup::{look, migrate_locked, refused},
    statement::{HELD, Placeholder, Statement, Syntax, Values},
    statements::Statements,
    watch::Observed,
};
use crate::{
    scope::StoreKey,
    store::{
        error::StoreErrorKind,
        wake::Wake,
        weakness::{Accepted, Weakness},
    },
};

mod notify;
mod transaction;

/// Keeps records in PostgreSQL. See the [module documentation](self).
pub type PostgresStore = SqlStore<Postgres>;

/// Settings of a [`PostgresStore`].
pub type PostgresStoreBuilder = SqlStoreBuilder<Postgres>;

impl SqlStoreBuilder<Postgres> {
    /// Whether waiters in other processes are woken by LISTEN and NOTIFY. Off unless set: see
    /// [Waking waiters](self#waking-waiters). It takes one more connection, which does not count towards an
    /// application's pool but is made with that pool's current options. After a server that did not answer at all, the
    /// connection is made again in 30 to 90 seconds; waiters poll meanwhile.
    pub fn notify(mut self, yes: bool) -> Self {
        self.settings.own = yes;
        self
    }
}

impl Dialect for Postgres {
    const STORE: &'static str = "postgres";
    const SYNTAX: Syntax = Syntax {
        quote: '"',
        placeholder: Placeholder::Dollar,
        now: "clock_timestamp()",
        later: "clock_timestamp() + (%)::bigint * interval '1 microsecond'",
        left: "(extract(epoch from % - clock_timestamp()) * 1000000)::bigint",
        since: "(extract(epoch from %) * 1000000)::bigint",
        int: "(%)::bigint",
        held: HELD,
    };
    const FILES: Files = Files {
        claim: include_str!("claim.sql"),
        inline_claim: false,
        lease: None,
        purge: &[include_str!("purge.sql")],
        append_step: include_str!("append_step.sql"),
        tables: include_str!("tables.sql"),
        versions: include_str!("versions.sql"),
        schema: include_str!("schema.sql"),
        upgrade: include_str!("upgrade.sql"),
        upgrade_steps: "",
        upgrade_versions: "",
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
            purge: include_str!("outbox/purge.sql"),
        },
    };
    const MIGRATES: bool = false;

    type Backend = Server<Self>;
    type Settings = Settings<bool>;
    type Options = PgConnectOptions;

    fn accepted(settings: &mut Settings<bool>) -> &mut Accepted {
        &mut settings.accepted
    }

    fn options(url: &str) -> Result<PgConnectOptions, ConnectError> {
        let expected = "postgres://user:password@host:port/database";
        let options: PgConnectOptions = parse(url, &["postgres", "postgresql"], expected)?;
        Ok(sqlx::ConnectOptions::disable_statement_logging(options).application_name("idempotent"))
    }

    async fn open(
        options: PgConnectOptions,
        table: &TableName,
        migrate: bool,
        settings: &Settings<bool>,
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
        _: i64,
    ) -> Result<Batch, sqlx::Error> {
        let [purge] = &statements.purge[..] else {
            return Err(sqlx::Error::RowNotFound);
        };
        let rows = access.fetch(purge, values).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Batch {
            purged: row.try_get(0)?,
            seen: row.try_get(1)?,
            until: row.try_get(2)?,
        })
    }

    const LOCKS_RECORDS: bool = true;

    const CLAIMS_WAIT: bool = false;

    fn is_locked(error: &sqlx::Error) -> bool {
        code(error).as_deref() == Some("55P03")
    }

    fn took_too_long(error: &sqlx::Error) -> bool {
        // `query_canceled`, which is what a statement time-out raises.
        is_time_out(error) || code(error).as_deref() == Some("57014")
    }

    /// A wrong password, an unknown user or one not allowed from this host, an unknown database.
    fn is_denial(error: &sqlx::Error) -> bool {
        matches!(code(error).as_deref(), Some("28P01" | "28000" | "3D000"))
    }
}

impl ServerDialect for Postgres {
    /// Whether waiters are notified.
    type OwnSettings = bool;
    type Own = Option<Notifier>;

    fn own(
        settings: &Settings<bool>,
        connections: &Connections<Self>,
        table: &TableName,
    ) -> Option<Notifier> {
        let notify = settings.own;
        notify.then(|| Notifier::new(connections.clone(), table))
    }

    async fn set_up(connection: &mut PgConnection, time_out: Duration) -> Result<(), sqlx::Error> {
        sqlx::query(include_str!("session.sql"))
            .persistent(false)
            .bind(millis(time_out))
            // Shorter, so that the error of a wait for a lock names the lock and not only the time-out.
            .bind(millis(time_out / 2))
            .execute(connection)
            .await?;
        Ok(())
    }

    fn is_ended_by(error: &sqlx::Error) -> bool {
        let Some(code) = code(error) else {
            return false;
        };
        is_fatal(error)
            || code.starts_with("08")
            || code.starts_with("57P")
            || classify(error).repeat == Repeat::Ended
    }

    const QUESTIONS: (Option<&'static str>, &'static str) = (
        Some(include_str!("system.sql")),
        include_str!("settings.sql"),
    );

    async fn observe(
        connection: &mut PgConnection,
        questions: SqlStr,
    ) -> Result<Observed, sqlx::Error> {
        let rows = connection.fetch_all(questions).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let server = rows.get(1).map(|row| row.try_get(0)).transpose()?;
        Ok(Observed {
            probe: probe(row)?,
            server: server.flatten(),
            table: row.try_get(4)?,
        })
    }

    async fn check(_: &Server<Self>, connection: &mut PgConnection) -> Result<(), ConnectError> {
        let settings = sqlx::query(include_str!("server.sql"))
            .persistent(false)
            .fetch_one(connection)
            .await
            .map_err(refused::<Self>("report its settings"))?;
        check_server(&settings)
    }

    /// A new table in one transaction. One of version 1 in steps, because an index is made beside running operations only
    /// outside of a transaction; each step can be repeated.
    async fn migrate(
        server: &Server<Self>,
        connection: &mut PgConnection,
    ) -> Result<Option<i64>, sqlx::Error> {
        let statements = &server.statements;
        let file = |file| Self::SYNTAX.statement(file, &server.table);
        let mut attempts = 0;
        loop {
            let migrated = migrate_in_steps(connection, statements, &file).await;
            attempts += 1;
            // Another transaction holds the table.
            match migrated {
                Err(error) if attempts < 30 && code(&error).as_deref() == Some("55P03") => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                migrated => return migrated,
            }
        }
    }

    fn changed(server: &Server<Self>, key: &StoreKey) {
        if let Some(notifier) = &server.own {
            notifier.notify(key);
        }
    }

    fn attach(server: &Server<Self>, wake: Wake) {
        if let Some(notifier) = &server.own {
            notifier.attach(wake);
        }
    }
}

async fn migrate_in_steps(
    connection: &mut PgConnection,
    statements: &Statements,
    file: impl Fn(&'static str) -> Statement,
) -> Result<Option<i64>, sqlx::Error> {
    let lock = file(include_str!("lock.sql")).sql;
    let mut transaction = connection.begin().await?;
    Postgres::run(&mut transaction, lock.clone()).await?;
    let found = look::<Postgres>(&mut transaction, statements).await?;
    if found.version != 1 || !found.table {
        let vanished = migrate_locked::<Postgres>(&mut transaction, statements).await?;
        if vanished.is_some() {
            transaction.rollback().await?;
        } else {
            transaction.commit().await?;
        }
        return Ok(vanished);
    }
    Postgres::run(&mut transaction, statements.audit.table.sql.clone()).await?;
    Postgres::run(&mut transaction, statements.outbox.table.sql.clone()).await?;
    Postgres::run(&mut transaction, statements.upgrade.clone()).await?;
    transaction.commit().await?;
    make_index(connection, &file).await?;
    let mut transaction = connection.begin().await?;
    Postgres::run(&mut transaction, lock).await?;
    Postgres::run(&mut transaction, file(include_str!("upgraded.sql")).sql).await?;
    Postgres::run(&mut transaction, statements.migrated.clone()).await?;
    transaction.commit().await?;
    Ok(None)
}

/// Makes the index of the purge while others read and write. Several processes may do so at once, and an earlier one may
/// have ended half-way.
async fn make_index(
    connection: &mut PgConnection,
    file: impl Fn(&'static str) -> Statement,
) -> Result<(), sqlx::Error> {
    connection
        .execute("set statement_timeout = 0; set lock_timeout = 0")
        .await?;
    let state = Statement {
        once: true,
        ..file(include_str!("index.sql"))
    };
    loop {
        let rows = Postgres::fetch(connection, &state, &Values::new()).await?;
        match rows.first().map_or(Ok(0), |row| row.try_get(0))? {
            1_i64 => return Ok(()),
            2 => tokio::time::sleep(Duration::from_millis(100)).await,
            0 => {
                let index =
                    "create index concurrently if not exists {purge_index} on {table} (purge_at)";
                let made = Postgres::run(connection, file(index).sql).await;
                // Another process was quicker.
                if !matches!(&made, Err(error) if code(error).as_deref() == Some("23505")) {
                    made?;
                }
            }
            _ => {
                let dropped = "drop index concurrently if exists {in_schema}{purge_index}";
                Postgres::run(connection, file(dropped).sql).await?;
            }
        }
    }
}

/// In the unit and range of the server's settings, where zero means no limit and too large a value is an error.
fn millis(limit: Duration) -> String {
    limit.as_millis().clamp(1, i32::MAX as u128).to_string()
}

/// Checks what the operator cannot accept.
fn check_server(server: &PgRow) -> Result<(), ConnectError> {
    let unread = refused::<Postgres>("report its settings");
    let is = |index: usize| server.try_get::<bool, _>(index).map_err(&unread);
    let (replica, read_committed) = (is(0)?, is(1)?);
    if replica {
        return Err(ConnectError::Unsuitable {
            reason: "the PostgreSQL server is a read-only replica: give the address of its primary",
        });
    }
    if !read_committed {
        return Err(ConnectError::Unsuitable {
            reason: "the pool's sessions do not default to read committed, so that concurrent requests roll each other \
                     back: set default_transaction_isolation to read committed for these sessions",
        });
    }
    Ok(())
}

/// What the server reports of its durability.
fn probe(server: &PgRow) -> Result<Probe, sqlx::Error> {
    let text = |index: usize| server.try_get::<Option<&str>, _>(index);
    let mut probe = Probe::default();
    let off = |weakness| move |value: &str| (value == "off").then_some(weakness);
    probe.read("fsync", text(0)?, off(Weakness::FsyncOff));
    probe.read(
        "full_page_writes",
        text(1)?,
        off(Weakness::FullPageWritesOff),
    );
    let standbys = text(3)?;
    probe.read("synchronous_commit", text(2)?, |value| match value {
        "off" => Some(Weakness::SynchronousCommitOff),
        // With a standby that commits wait for, `local` does not.
        "local" if standbys != Some("") => Some(Weakness::SynchronousCommitLocal),
        _ => None,
    });
    Ok(probe)
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
}

/// Whether the server ended the session with this error.
fn is_fatal(error: &sqlx::Error) -> bool {
    let severity = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .map(PgDatabaseError::severity);
    matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic))
}

/// The meaning of an error by its SQLSTATE (PostgreSQL's documentation, appendix A).
fn classify(error: &sqlx::Error) -> Verdict {
    let Some(code) = code(error) else {
        return Verdict::of_client_error(error);
    };
    match &*code {
        // Rolled back in favour of another transaction.
        "40001" | "40P01" | "23505" => Verdict::repeated(Repeat::Raced),
        // The server is shutting down, has become a replica, or ended an idle session; or a prepared statement of this
        // session is gone, as after `discard all`, or another's is there, as behind a pooler. Another connection may work.
        "57P01" | "57P02" | "57P05" | "25006" | "26000" | "42P05" => {
            Verdict::repeated(Repeat::Ended)
        }
        // The table has changed since the statement was prepared.
        "0A000" if replanned(error) => Verdict::repeated(Repeat::Ended),
        "53100" => Verdict::lasting(StoreErrorKind::Full),
        // Not XX000, which poolers use for errors of every kind.
        "XX001" | "XX002" => Verdict::lasting(StoreErrorKind::Corrupt),
        code => Verdict::lasting(match &code[..2.min(code.len())] {
            "54" => StoreErrorKind::TooLarge,
            // Not 28, which a new connection gets while passwords rotate, and which passes.
            "0A" | "22" | "23" | "3D" | "3F" | "42" => StoreErrorKind::Refused,
            _ => StoreErrorKind::Unavailable,
        }),
    }
}

/// Whether a prepared statement no longer fits its table: "cached plan must not change result type", in any language.
fn replanned(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_some_and(|error| error.routine() == Some("RevalidateCachedQuery"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_never_unlimited_and_in_range() {
        assert_eq!(millis(Duration::ZERO), "1");
        assert_eq!(millis(Duration::from_nanos(1)), "1");
        assert_eq!(millis(Duration::from_secs(2)), "2000");
        assert_eq!(millis(Duration::MAX), i32::MAX.to_string());
    }
}
