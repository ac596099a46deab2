//! Opening the file, and creating its table.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor as _, Sqlite, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    identity::Identity,
    primary_code,
    transaction::{SqliteTransactions, gate},
    writer::Writer,
};
use crate::store::{
    sql::{
        ConnectError, TableName,
        dialect::{Dialect as _, Driver as _},
        error::parse,
        probe::Probe,
        setup::{self, check_not_vanished, check_table, migrate_locked, refused},
        statements::Statements,
    },
    weakness::{Accepted, Weakness},
};

/// How long to wait while another process writes.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// The value of `synchronous = FULL`.
const FULL: i64 = 2;

/// The settings of the builder.
#[derive(Clone, Debug, Default)]
pub(in crate::store::sql) struct Settings {
    pub(super) max_bytes: Option<u64>,
    pub(super) accepted: Accepted,
}

pub(super) fn options(url: &str) -> Result<SqliteConnectOptions, ConnectError> {
    let expected = "sqlite://path/to/file.db";
    let options: SqliteConnectOptions = parse(url, &["sqlite"], expected)?;
    if options.get_filename().as_os_str().is_empty() {
        let source = sqlx::Error::Configuration("it has no path".into());
        return Err(ConnectError::Url { expected, source });
    }
    // The driver's names for a database in memory: no file of that name may be created.
    if is_in_memory(&options) {
        return Err(in_memory());
    }
    // A mode in the URL takes precedence.
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mode = query.split('&').find_map(|pair| pair.strip_prefix("mode="));
    if mode.is_some_and(|mode| !mode.starts_with("rwc")) {
        return Ok(options);
    }
    create(options.get_filename());
    Ok(options.create_if_missing(true))
}

pub(super) async fn open(
    options: SqliteConnectOptions,
    table: &TableName,
    migrate: bool,
    settings: &Settings,
) -> Result<Writer, ConnectError> {
    if table.schema().is_some() {
        let source =
            sqlx::Error::Configuration("SQLite has no schemas: name the table alone".into());
        return Err(refused::<Sqlite>("use the table's name")(source));
    }
    let transactions = SqliteTransactions::new(durable(options.clone()), table, gate());
    let (connection, identity) = connect(options, settings.accepted).await?;
    serve(connection, identity, table, migrate, settings, transactions).await
}

/// Creates or checks the table, and starts the writer.
async fn serve(
    mut connection: SqliteConnection,
    identity: Identity,
    table: &TableName,
    migrate: bool,
    settings: &Settings,
    transactions: SqliteTransactions,
) -> Result<Writer, ConnectError> {
    let statements = Statements::new::<Sqlite>(table);
    if let Some(bytes) = settings.max_bytes {
        let limited = limit(&mut connection, bytes).await;
        limited.map_err(refused::<Sqlite>("limit its size"))?;
    }
    if migrate {
        let migrated = self::migrate(&mut connection, &statements).await;
        let vanished = migrated.map_err(refused::<Sqlite>("create the table"))?;
        check_not_vanished(table, vanished)?;
    }
    check(&mut connection, &statements, table).await?;
    let identity = identity.with_companions().map_err(unreachable)?;
    // The set-up so far was written to the file that other processes open.
    identity.check().map_err(unreachable)?;
    transactions.identify(identity.clone());
    Writer::start(connection, identity, statements, transactions)
        .map_err(|error| refused::<Sqlite>("start the writer")(sqlx::Error::Io(error)))
}

async fn connect(
    options: SqliteConnectOptions,
    accepted: Accepted,
) -> Result<(SqliteConnection, Identity), ConnectError> {
    let options = durable(options);
    let deadline = Instant::now() + BUSY;
    let (mut connection, identity) = loop {
        match connect_once(&options).await? {
            Ok(connected) => break connected,
            Err(error) if Instant::now() >= deadline => {
                return Err(setup::unreachable::<Sqlite>(error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    configure(&mut connection)
        .await
        .map_err(refused::<Sqlite>("flush through the disk's cache"))?;
    let synchronous: i64 = sqlx::query_scalar("pragma synchronous")
        .fetch_one(&mut connection)
        .await
        .map_err(refused::<Sqlite>("report `synchronous`"))?;
    let mut probe = Probe::default();
    if synchronous < FULL {
        probe.found(Weakness::SynchronousBelowFull, synchronous.to_string());
    }
    probe.judge(Sqlite::STORE, accepted)?;
    Ok((connection, identity))
}

/// The options of each connection to the file.
fn durable(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .disable_statement_logging()
}

/// Set after connecting, because the options of an application's pool may name the same pragma in another spelling. It
/// matters on macOS only: without it, a flush there ends in the disk's cache.
pub(super) async fn configure(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("pragma fullfsync = on")
        .execute(connection)
        .await?;
    Ok(())
}

/// Why SQLite cannot open a file, which it does not say.
fn why_not_opened(file: &Path, error: &sqlx::Error) -> String {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let (shown, folder_shown) = (file.display(), folder.display());
    if file.is_dir() {
        return format!("{shown} is a folder: name a file in it");
    }
    match std::fs::metadata(folder) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => format!(
            "{shown}: the folder {folder_shown} does not exist, and the folder has to exist: create it"
        ),
        Ok(found) if !found.is_dir() => format!("{shown}: {folder_shown} is not a folder"),
        _ => format!(
            "{shown}: {error}. This process needs permission to read and write the file, and to write in its folder"
        ),
    }
}

/// Connects and identifies the file that SQLite opened: the one that was there before and after. The inner error is one
/// after which to try again.
async fn connect_once(
    options: &SqliteConnectOptions,
) -> Result<Result<(SqliteConnection, Identity), sqlx::Error>, ConnectError> {
    let file = options.get_filename();
    let before = Identity::of(file);
    let mut connection = match options.connect().await {
        Ok(connection) => connection,
        // Changing a new file to WAL mode is the one step for which SQLite ignores the busy time-out.
        Err(error) if is_busy(&error) => return Ok(Err(error)),
        Err(error) if primary_code(&error) == Some(14) => {
            return Err(unreachable(io::Error::new(
                io::ErrorKind::NotFound,
                why_not_opened(file, &error),
            )));
        }
        Err(error) => return Err(setup::unreachable::<Sqlite>(error)),
    };
    let mode: String = sqlx::query_scalar("pragma journal_mode")
        .fetch_one(&mut connection)
        .await
        .map_err(refused::<Sqlite>("report its journal mode"))?;
    if mode != "wal" {
        return Err(in_memory());
    }
    let after = Identity::of(file).map_err(unreachable)?;
    Ok(match before {
        Ok(before) if before == after => Ok((connection, after)),
        Ok(_) => Err(sqlx::Error::Io(io::Error::other(
            "the file was replaced while it was being opened",
        ))),
        // This attempt created the file.
        Err(missing) => Err(sqlx::Error::Io(missing)),
    })
}

/// Whether the name is one of the driver's for a database in memory.
fn is_in_memory(options: &SqliteConnectOptions) -> bool {
    options
        .get_filename()
        .to_str()
        .is_some_and(|name| name == ":memory:" || name.starts_with("file:sqlx-in-memory-"))
}

fn in_memory() -> ConnectError {
    ConnectError::Unsuitable {
        reason: "the SQLite database is not in a file in WAL mode: give the path of a file on a local disk, or use \
                 `memory:` if records may end with the process",
    }
}

/// Creates the file before SQLite does, which would make it readable by everybody. Its companions get the same mode.
fn create(file: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // If this fails, SQLite's own attempt fails too, with a better message.
    let _ = options.open(file);
}

async fn limit(connection: &mut SqliteConnection, bytes: u64) -> Result<(), sqlx::Error> {
    let page: i64 = sqlx::query_scalar("pragma page_size")
        .fetch_one(&mut *connection)
        .await?;
    let pages = bytes / u64::try_from(page).unwrap_or(4096).max(1);
    // A pragma takes no parameters, and a number is safe as text. Zero would be no limit; one page is too few for a
    // table.
    let pages = pages.max(1);
    sqlx::query(AssertSqlSafe(format!("pragma max_page_count = {pages}")))
        .execute(connection)
        .await?;
    Ok(())
}

/// Migrates under the write lock, so that it happens once however many processes start.
async fn migrate(
    connection: &mut SqliteConnection,
    statements: &Statements,
) -> Result<Option<i64>, sqlx::Error> {
    connection.execute("begin immediate").await?;
    let migrated = migrate_locked::<Sqlite>(connection, statements).await;
    if migrated.is_ok() {
        connection.execute("commit").await?;
    } else {
        // The first error is the cause; a second one is ignored.
        let _ = connection.execute("rollback").await;
    }
    migrated
}

/// Checks that the table exists, has this crate's version and can be written to.
async fn check(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<(), ConnectError> {
    check_table::<Sqlite>(connection, statements, table).await?;
    // A read-only file accepts everything but a write.
    let probe = Sqlite::SYNTAX.statement(include_str!("probe.sql"), table);
    let written = Sqlite::run(connection, probe.sql).await;
    written.map_err(refused::<Sqlite>("be written to"))
}

fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(5 | 6))
}

fn unreachable(error: io::Error) -> ConnectError {
    setup::unreachable::<Sqlite>(sqlx::Error::Io(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flush_reaches_the_disk_on_every_system() {
        let file = std::env::temp_dir().join(format!("idempotent-open-{}.db", std::process::id()));
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true)
            // As the options of an application's own pool may say.
            .pragma("FullFSync", "off")
            .synchronous(SqliteSynchronous::Off);
        let (mut connection, _) = connect(options, Accepted::default())
            .await
            .expect("the file opens");
        for (pragma, value) in [("synchronous", FULL), ("fullfsync", 1)] {
            let set: i64 = sqlx::query_scalar(AssertSqlSafe(format!("pragma {pragma}")))
                .fetch_one(&mut connection)
                .await
                .expect("its value");
            assert_eq!(set, value, "{pragma}");
        }
        sqlx::Connection::close(connection).await.expect("closed");
        std::fs::remove_file(&file).expect("the file exists");
    }

    /// Otherwise this writer's records would be in a file that no other process opens.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_was_replaced_since_it_was_opened_is_not_served() {
        let folder = std::env::temp_dir().join(format!("idempotent-serve-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let file = folder.join("records.db");
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true);
        let (connection, identity) = connect(options, Accepted::default())
            .await
            .expect("the file opens");
        std::fs::rename(&file, file.with_extension("aside")).expect("the file exists");
        std::fs::write(&file, b"").expect("another file");
        let table = TableName::default();
        let transactions = SqliteTransactions::new(SqliteConnectOptions::new(), &table, gate());
        let Err(error) = serve(
            connection,
            identity,
            &table,
            true,
            &Settings::default(),
            transactions,
        )
        .await
        else {
            panic!("the file is served");
        };
        let why = std::error::Error::source(&error).expect("a reason");
        assert!(why.to_string().contains("replaced"), "{why}");
        std::fs::remove_dir_all(&folder).expect("the folder exists");
    }
}
