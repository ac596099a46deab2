//! Errors: why a store could not be opened, and what an error of an operation means.

use std::{error::Error, fmt, io, str::FromStr, time::Duration};

use tokio::time::error::Elapsed;

use super::{TableName, table_name::TableNameError};
use crate::store::{
    error::StoreErrorKind,
    weakness::{FoundWeakness, write_found},
};

/// Why an SQL store could not be opened, or its table could not be created.
///
/// No message contains the URL, which may contain a password.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be parsed.
    Url {
        /// The expected form.
        expected: &'static str,
        /// The parser's error.
        source: sqlx::Error,
    },
    /// The time-out is shorter than any statement needs.
    TimeOut {
        /// The time-out that was set.
        found: Duration,
        /// The shortest allowed one.
        shortest: Duration,
    },
    /// The table's name is not valid, or has a schema where the database has none.
    TableName(TableNameError),
    /// The server did not answer, or the file cannot be opened.
    Unreachable {
        /// The store's name.
        store: &'static str,
        /// The driver's error.
        source: sqlx::Error,
    },
    /// The server refuses the user, the password or the database.
    Authentication {
        /// The store's name.
        store: &'static str,
        /// The server's error.
        source: sqlx::Error,
    },
    /// The table does not exist.
    MissingTable {
        /// Its name.
        table: TableName,
    },
    /// The table existed once and is gone. An empty one in its place would let every completed request execute again,
    /// so none is created.
    VanishedTable {
        /// Its name.
        table: TableName,
        /// The version that it had.
        found: i64,
    },
    /// The table was created by another version of this crate.
    OtherVersion {
        /// Its name.
        table: TableName,
        /// Its version.
        found: i64,
        /// The version that this crate works with.
        known: i64,
    },
    /// The server accepts no statement as large as the largest response.
    PacketTooSmall {
        /// Its `max_allowed_packet`.
        bytes: u64,
        /// The required size.
        needed: u64,
    },
    /// The database may lose acknowledged writes.
    Weak {
        /// The store's name.
        store: &'static str,
        /// All weaknesses that were found and not [accepted](super::SqlStoreBuilder::accept).
        found: Vec<FoundWeakness>,
    },
    /// The server does not report settings on which its durability depends.
    Unverified {
        /// The store's name.
        store: &'static str,
        /// The settings, separated by `, `.
        settings: String,
    },
    /// The database or its sessions are of no use to the store, whatever an operator accepts: a replica, for example.
    Unsuitable {
        /// What was found, and what to do.
        reason: &'static str,
    },
    /// The database refused a statement.
    Refused {
        /// The store's name.
        store: &'static str,
        /// The purpose of the statement.
        doing: &'static str,
        /// The server's error.
        source: sqlx::Error,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { expected, .. } => write!(f, "the URL cannot be used: expected {expected}"),
            Self::TimeOut { found, shortest } => write!(
                f,
                "a `time_out` of {found:?} is too short for a statement: set {shortest:?} or more (it cannot be turned \
                 off)"
            ),
            Self::TableName(error) => error.fmt(f),
            Self::Unreachable { store, .. } => {
                write!(
                    f,
                    "the {store} database could not be reached: check the host and port, or the path, of the URL, and \
                     that the database is available there"
                )
            }
            Self::Authentication { store, .. } => {
                write!(
                    f,
                    "the {store} server refuses the user, its password or the database"
                )
            }
            Self::MissingTable { table } => write!(
                f,
                "the table {table} does not exist: create it once with `migrate()`, or with `.migrate(true)` on the \
                 builder"
            ),
            Self::VanishedTable { table, found } => write!(
                f,
                "the table {table} (version {found}, by {table}_versions) is gone and its outcomes are lost: with an \
                 empty table, retries of completed requests would execute again. Restore it; or, to accept that, drop \
                 {table}_versions and migrate again"
            ),
            Self::OtherVersion {
                table,
                found,
                known,
            } if found < known => write!(
                f,
                "the table {table} has version {found} and this crate needs version {known}: call `migrate()` (processes of \
                 version {found} go on beside the migrated table)"
            ),
            Self::OtherVersion {
                table,
                found,
                known,
            } => write!(
                f,
                "the table {table} has version {found} and this crate supports version {known}: update the crate"
            ),
            Self::PacketTooSmall { bytes, needed } => write!(
                f,
                "the server's max_allowed_packet is {bytes} bytes and the largest response needs {needed}: raise it, \
                 or lower `largest_response` together with the routes' `max_response`"
            ),
            Self::Weak { store, found } => write_found(store, found, f),
            Self::Unverified { store, settings } => write!(
                f,
                "the {store} server does not report {settings}, so it is unknown whether it keeps acknowledged writes: \
                 find that out, and accept it with `accept_unverified()`"
            ),
            Self::Unsuitable { reason } => f.write_str(reason),
            Self::Refused { store, doing, .. } => {
                write!(f, "the {store} database refused to {doing}")
            }
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Url { source, .. }
            | Self::Unreachable { source, .. }
            | Self::Authentication { source, .. }
            | Self::Refused { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl ConnectError {
    /// Whether a server is not there yet: nobody listens, or it is starting up. A file does not appear by itself.
    pub(in crate::store) fn is_of_a_server_that_starts(&self) -> bool {
        matches!(self, Self::Unreachable { store, .. } if *store != "sqlite")
    }
}

impl From<TableNameError> for ConnectError {
    fn from(error: TableNameError) -> Self {
        Self::TableName(error)
    }
}

/// The error for a server that did not answer in time.
pub(super) fn timed_out(elapsed: Elapsed) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, elapsed))
}

/// Parses a URL with one of these schemes, which sqlx's own parsers do not check.
pub(super) fn parse<T: FromStr<Err = sqlx::Error>>(
    url: &str,
    schemes: &[&str],
    expected: &'static str,
) -> Result<T, ConnectError> {
    let wrong = |source| ConnectError::Url { expected, source };
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if !schemes.contains(&scheme) {
        return Err(wrong(sqlx::Error::Configuration(
            "it has another scheme".into(),
        )));
    }
    url.parse().map_err(wrong)
}

/// Servers read a limit of zero as no limit, and most have none below a millisecond.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) fn check_time_out(time_out: Duration) -> Result<(), ConnectError> {
    const SHORTEST: Duration = Duration::from_millis(1);
    if time_out < SHORTEST {
        return Err(ConnectError::TimeOut {
            found: time_out,
            shortest: SHORTEST,
        });
    }
    Ok(())
}

/// The meaning of a statement's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) kind: StoreErrorKind,
    pub(super) repeat: Repeat,
}

/// Whether to repeat the statement at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(feature = "mysql", feature = "postgres")),
    expect(dead_code, reason = "SQLite repeats nothing")
)]
pub(super) enum Repeat {
    No,
    /// Yes: it was rolled back in favour of a concurrent one.
    Raced,
    /// Yes: the server ended the session and did not execute the statement, or has executed it to its end. All
    /// connections of the pool may be in that state, as after a change of primaries.
    Ended,
    /// The connection broke without an answer, as all connections of the pool may after a restart of the server: the
    /// statement may still arrive. It may be repeated if a second copy of it changes nothing.
    Lost,
}

impl Verdict {
    pub(super) const fn lasting(kind: StoreErrorKind) -> Self {
        Self {
            kind,
            repeat: Repeat::No,
        }
    }

    pub(super) const fn repeated(repeat: Repeat) -> Self {
        Self {
            kind: StoreErrorKind::Unavailable,
            repeat,
        }
    }

    /// The meaning of an error that the server did not send.
    pub(super) fn of_client_error(error: &sqlx::Error) -> Self {
        match error {
            // Only errors of an established connection. When a new connection fails, another one would fail too.
            sqlx::Error::Io(error) if is_dead(error.kind()) => Self::repeated(Repeat::Lost),
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::TypeNotFound { .. } => Self::lasting(StoreErrorKind::Corrupt),
            sqlx::Error::Configuration(_) | sqlx::Error::Encode(_) => {
                Self::lasting(StoreErrorKind::Refused)
            }
            _ => Self::lasting(StoreErrorKind::Unavailable),
        }
    }
}

/// Whether the error is that of a connection that broke without an answer.
fn is_dead(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}
