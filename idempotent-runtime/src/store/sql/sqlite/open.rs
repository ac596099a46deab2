//! How the file is opened, and its table made.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions as _, Executor as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    NAME,
    identity::Identity,
    records::primary_code,
    statements::{Statements, VERSION},
    writer::Writer,
};
use crate::store::sql::{
    ConnectError, TableName,
    error::{known, parse, still_there},
    setup::{Setup, missing},
};

/// How long to wait for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

/// What SQLite calls `synchronous = FULL`.
const FULL: i64 = 2;

/// What the builder was told.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) table: TableName,
    pub(super) migrate: bool,
    pub(super) max_bytes: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            table: TableName::default(),
            migrate: true,
            max_bytes: None,
        }
    }
}

const SETUP: Setup = Setup {
    store: NAME,
    denies: |_| false,
};

pub(super) fn options(url: &str) -> Result<SqliteConnectOptions, ConnectError> {
    let expected = "sqlite://path/to/file.db";
    let options: SqliteConnectOptions = parse(url, &["sqlite"], expected)?;
    if options.get_filename().as_os_str().is_empty() {
        let source = sqlx::Error::Configuration("there is no path".into());
        return Err(ConnectError::Url { expected, source });
    }
    // What the driver calls a database in memory; a file of that name is not to be made for it.
    if is_in_memory(&options) {
        return Err(in_memory());
    }
    // Who says how to open the file has the last word.
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
    settings: &Settings,
) -> Result<Writer, ConnectError> {
    if settings.table.schema().is_some() {
        let source =
            sqlx::Error::Configuration("SQLite has no schemas: name the table alone".into());
        return Err(SETUP.refused("use the table's name")(source));
    }
    let (connection, identity) = connect(options).await?;
    serve(connection, identity, settings).await
}

/// Makes the table ready, and puts the writer to work.
async fn serve(
    mut connection: SqliteConnection,
    identity: Identity,
    settings: &Settings,
) -> Result<Writer, ConnectError> {
    let statements = Arc::new(Statements::new(&settings.table));
    if let Some(bytes) = settings.max_bytes {
        let limited = limit(&mut connection, bytes).await;
        limited.map_err(SETUP.refused("limit its size"))?;
    }
    if settings.migrate {
        let made = migrate(&mut connection, &statements, &settings.table).await;
        still_there(
            &settings.table,
            made.map_err(SETUP.refused("make the table"))?,
        )?;
    }
    check(&mut connection, &statements, &settings.table).await?;
    let identity = identity.with_companions().map_err(lost)?;
    // What was done so far was done to the file that others open.
    identity.check().map_err(lost)?;
    Writer::start(connection, identity, statements)
        .map_err(|error| SETUP.refused("start the writer")(sqlx::Error::Io(error)))
}

async fn connect(
    options: SqliteConnectOptions,
) -> Result<(SqliteConnection, Identity), ConnectError> {
    let options = options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .disable_statement_logging();
    let patience = Instant::now() + BUSY;
    let (mut connection, identity) = loop {
        match connect_once(&options).await? {
            Ok(connected) => break connected,
            Err(again) if Instant::now() >= patience => return Err(SETUP.unreachable(again)),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    // The options of an application's pool may name the same pragmas in another spelling, so that these come after them.
    // Only macOS knows the difference: without it, a flush there ends in the disk's cache.
    sqlx::query("pragma fullfsync = on")
        .execute(&mut connection)
        .await
        .map_err(SETUP.refused("flush through the disk's cache"))?;
    let synchronous: i64 = sqlx::query_scalar("pragma synchronous")
        .fetch_one(&mut connection)
        .await
        .map_err(SETUP.refused("say whether it flushes"))?;
    if synchronous < FULL {
        return Err(ConnectError::NotDurable {
            reason: "a pragma of the pool's options sets `synchronous` lower than FULL: what is acknowledged would not \
                     be flushed to the disk. Leave it out",
        });
    }
    Ok((connection, identity))
}

/// Connects, and knows which file it is that SQLite opened: the one that was there before and after. The inner error is one
/// that may pass.
async fn connect_once(
    options: &SqliteConnectOptions,
) -> Result<Result<(SqliteConnection, Identity), sqlx::Error>, ConnectError> {
    let file = options.get_filename();
    let before = Identity::of(file);
    let mut connection = match options.connect().await {
        Ok(connection) => connection,
        // Changing a new file to WAL is the one thing for which SQLite does not wait its turn.
        Err(error) if is_busy(&error) => return Ok(Err(error)),
        Err(error) if primary_code(&error) == Some(14) => {
            let message = format!(
                "{}: {error}. Its folder has to exist, and this process has to be permitted to write there",
                file.display()
            );
            return Err(lost(io::Error::new(io::ErrorKind::NotFound, message)));
        }
        Err(error) => return Err(SETUP.unreachable(error)),
    };
    let mode: String = sqlx::query_scalar("pragma journal_mode")
        .fetch_one(&mut connection)
        .await
        .map_err(SETUP.refused("say its journal mode"))?;
    if mode != "wal" {
        return Err(in_memory());
    }
    let after = Identity::of(file).map_err(lost)?;
    Ok(match before {
        Ok(before) if before == after => Ok((connection, after)),
        Ok(_) => Err(sqlx::Error::Io(io::Error::other(
            "the file was exchanged while it was opened",
        ))),
        // It was made by this.
        Err(missing) => Err(sqlx::Error::Io(missing)),
    })
}

/// Whether the driver made a name of its own up, as it does for a database in memory.
fn is_in_memory(options: &SqliteConnectOptions) -> bool {
    options
        .get_filename()
        .to_str()
        .is_some_and(|name| name == ":memory:" || name.starts_with("file:sqlx-in-memory-"))
}

fn in_memory() -> ConnectError {
    ConnectError::NotDurable {
        reason: "the SQLite database is not in a file in WAL mode: give the path of a file on a local disk, or use \
                 `memory:` if records may end with the process",
    }
}

/// Makes the file before SQLite does, which would let everybody read it. Its companions get the same mode.
fn create(file: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // A failure shows again, and better, when SQLite opens the file.
    let _ = options.open(file);
}

async fn limit(connection: &mut SqliteConnection, bytes: u64) -> Result<(), sqlx::Error> {
    let page: i64 = sqlx::query_scalar("pragma page_size")
        .fetch_one(&mut *connection)
        .await?;
    let pages = bytes / u64::try_from(page).unwrap_or(4096).max(1);
    // A pragma takes no parameters; this one is a number. Zero would be no limit; one page is too few for a table.
    let pages = pages.max(1);
    sqlx::query(&format!("pragma max_page_count = {pages}"))
        .execute(connection)
        .await?;
    Ok(())
}

/// Under the write lock, so that it happens once however many processes start.
async fn migrate(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query("begin immediate")
        .execute(&mut *connection)
        .await?;
    match migrate_locked(connection, statements, table).await {
        Ok(vanished) => {
            sqlx::query("commit").execute(connection).await?;
            Ok(vanished)
        }
        Err(error) => {
            // Of two errors the first is the reason.
            let _ = sqlx::query("rollback").execute(connection).await;
            Err(error)
        }
    }
}

/// Gives the version of a table that was made before and is gone: then nothing is made.
async fn migrate_locked(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query(&statements.versions)
        .execute(&mut *connection)
        .await?;
    let found: i64 = sqlx::query_scalar(&statements.version)
        .fetch_one(&mut *connection)
        .await?;
    if found != 0 && !exists(connection, statements, table, "").await? {
        return Ok(Some(found));
    }
    for (version, migration) in missing(&statements.migrations, found) {
        connection.execute(migration).await?;
        sqlx::query(&statements.migrated)
            .bind(version)
            .execute(&mut *connection)
            .await?;
    }
    Ok(None)
}

/// The table's version; 0 when there is none.
async fn version(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<i64, sqlx::Error> {
    for suffix in ["_versions", ""] {
        if !exists(connection, statements, table, suffix).await? {
            return Ok(0);
        }
    }
    sqlx::query_scalar(&statements.version)
        .fetch_one(connection)
        .await
}

async fn exists(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &TableName,
    suffix: &str,
) -> Result<bool, sqlx::Error> {
    let found: i64 = sqlx::query_scalar(&statements.exists)
        .bind(format!("{}{suffix}", table.name()))
        .fetch_one(connection)
        .await?;
    Ok(found > 0)
}

/// That the table is there, is the one this version knows, and can be written to.
async fn check(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &TableName,
) -> Result<(), ConnectError> {
    let found = version(connection, statements, table).await;
    let found = found.map_err(SETUP.refused("say the table's version"))?;
    known(table, found, VERSION)?;
    // A file that is read-only takes everything but a write.
    let written = sqlx::query(&statements.probe).execute(connection).await;
    written.map_err(SETUP.refused("be written to"))?;
    Ok(())
}

fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(5 | 6))
}

fn lost(file: io::Error) -> ConnectError {
    SETUP.unreachable(sqlx::Error::Io(file))
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
            // What the application's own pool may say.
            .pragma("FullFSync", "off")
            .synchronous(SqliteSynchronous::Off);
        let (mut connection, _) = connect(options).await.expect("the file opens");
        for (pragma, value) in [("synchronous", FULL), ("fullfsync", 1)] {
            let set: i64 = sqlx::query_scalar(&format!("pragma {pragma}"))
                .fetch_one(&mut connection)
                .await
                .expect("its value");
            assert_eq!(set, value, "{pragma}");
        }
        sqlx::Connection::close(connection).await.expect("closed");
        std::fs::remove_file(&file).expect("it was there");
    }

    /// Then what this writer is told is done would be in a file that nobody else opens.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_was_exchanged_since_it_was_opened_is_not_served() {
        let folder = std::env::temp_dir().join(format!("idempotent-serve-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let file = folder.join("records.db");
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true);
        let (connection, identity) = connect(options).await.expect("the file opens");
        std::fs::rename(&file, file.with_extension("aside")).expect("it is there");
        std::fs::write(&file, b"").expect("another one");
        let Err(error) = serve(connection, identity, &Settings::default()).await else {
            panic!("it is served");
        };
        let why = std::error::Error::source(&error).expect("a reason");
        assert!(why.to_string().contains("replaced"), "{why}");
        std::fs::remove_dir_all(&folder).expect("it was there");
    }
}
