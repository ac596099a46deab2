//! What can go wrong, at start and later.

use std::{error::Error, fmt, io, str::FromStr, time::Duration};

use super::{TableName, table_name::TableNameError};
use crate::store::error::StoreErrorKind;

/// Why an SQL store could not be opened or its table not be made.
///
/// No message contains the URL, which may contain a password.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be understood.
    Url {
        /// The form it must have.
        expected: &'static str,
        /// What the parser said.
        source: sqlx::Error,
    },
    /// A statement must be given more time.
    TimeOut {
        /// What was set.
        found: Duration,
        /// The shortest that can be.
        shortest: Duration,
    },
    /// The table's name is none, or has a schema where there is no such thing.
    TableName(TableNameError),
    /// The server did not answer, or the file cannot be opened.
    Unreachable {
        /// The store.
        store: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// The server refuses the user or the password.
    Authentication {
        /// The store.
        store: &'static str,
        /// What it said.
        source: sqlx::Error,
    },
    /// The table does not exist.
    MissingTable {
        /// Which one.
        table: TableName,
    },
    /// The table was made once, and is gone. An empty one in its place would let every request that was completed
    /// execute again, so nothing makes one.
    VanishedTable {
        /// Which one.
        table: TableName,
        /// The version that it had.
        found: i64,
    },
    /// The table was made by another version of this crate.
    OtherVersion {
        /// Which table.
        table: TableName,
        /// Its version.
        found: i64,
        /// The version that this crate works with.
        known: i64,
    },
    /// The server takes no statement as large as the largest response.
    PacketTooSmall {
        /// Its `max_allowed_packet`.
        bytes: u64,
        /// What is needed.
        needed: u64,
    },
    /// The database is none that keeps what it acknowledged.
    NotDurable {
        /// What is the matter, and what to do.
        reason: &'static str,
    },
    /// A statement failed.
    Refused {
        /// The store.
        store: &'static str,
        /// What was asked for.
        doing: &'static str,
        /// What the server said.
        source: sqlx::Error,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { expected, .. } => write!(f, "the URL cannot be used: expected {expected}"),
            Self::TimeOut { found, shortest } => write!(
                f,
                "the time_out {found:?} leaves a statement no time: it is {shortest:?} at least, and there is always one"
            ),
            Self::TableName(error) => error.fmt(f),
            Self::Unreachable { store, .. } => {
                write!(
                    f,
                    "the {store} database could not be reached: check where the URL says it is, and that it answers there"
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
                "the table {table} does not exist: make it once with `migrate()`, or with `.migrate(true)` on the \
                 builder"
            ),
            Self::VanishedTable { table, found } => write!(
                f,
                "{table}_versions says that the table {table} was made (version {found}), and it is gone: with its \
                 outcomes lost, retries of completed requests would execute again. Restore it; or, to begin anew \
                 knowing this, drop {table}_versions and migrate again"
            ),
            Self::OtherVersion {
                table,
                found,
                known,
            } if found < known => write!(
                f,
                "the table {table} has version {found} and this crate needs version {known}: call `migrate()`"
            ),
            Self::OtherVersion {
                table,
                found,
                known,
            } => write!(
                f,
                "the table {table} has version {found}, and this crate knows version {known}: update the crate"
            ),
            Self::PacketTooSmall { bytes, needed } => write!(
                f,
                "the server's max_allowed_packet is {bytes} bytes, and the largest response needs {needed}: raise it, \
                 or lower `largest_response` together with the routes' `max_response`"
            ),
            Self::NotDurable { reason } => f.write_str(reason),
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

impl From<TableNameError> for ConnectError {
    fn from(error: TableNameError) -> Self {
        Self::TableName(error)
    }
}

/// What a table's version means; 0 is that of one that is not there.
pub(super) fn known(table: &TableName, found: i64, known: i64) -> Result<(), ConnectError> {
    let table = table.clone();
    match found {
        0 => Err(ConnectError::MissingTable { table }),
        _ if found == known => Ok(()),
        _ => Err(ConnectError::OtherVersion {
            table,
            found,
            known,
        }),
    }
}

/// What a migration found: the version of a table that is gone, or nothing amiss.
pub(super) fn still_there(table: &TableName, vanished: Option<i64>) -> Result<(), ConnectError> {
    match vanished {
        None => Ok(()),
        Some(found) => Err(ConnectError::VanishedTable {
            table: table.clone(),
            found,
        }),
    }
}

/// Parses a URL with one of these schemes. The parsers of sqlx do not look at it.
pub(super) fn parse<T: FromStr<Err = sqlx::Error>>(
    url: &str,
    schemes: &[&str],
    expected: &'static str,
) -> Result<T, ConnectError> {
    let wrong = |source| ConnectError::Url { expected, source };
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if !schemes.contains(&scheme) {
        return Err(wrong(sqlx::Error::Configuration(
            "it begins with another scheme".into(),
        )));
    }
    url.parse().map_err(wrong)
}

/// Servers take a limit of zero for none at all, and most have none below a millisecond.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) fn enough(time_out: Duration) -> Result<(), ConnectError> {
    const SHORTEST: Duration = Duration::from_millis(1);
    if time_out < SHORTEST {
        return Err(ConnectError::TimeOut {
            found: time_out,
            shortest: SHORTEST,
        });
    }
    Ok(())
}

/// What an error of an operation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) kind: StoreErrorKind,
    pub(super) repeat: Repeat,
}

/// Whether to repeat a statement right away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    No,
    /// It was undone in favour of another one.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    Raced,
    /// The connection was dead, as all of them may be after a restart of the server.
    Dead {
        connections: usize,
    },
}

impl Verdict {
    pub(super) const fn lasting(kind: StoreErrorKind) -> Self {
        Self {
            kind,
            repeat: Repeat::No,
        }
    }

    pub(super) const fn dead(connections: usize) -> Self {
        Self {
            kind: StoreErrorKind::Unavailable,
            repeat: Repeat::Dead { connections },
        }
    }

    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) const RACED: Self = Self {
        kind: StoreErrorKind::Unavailable,
        repeat: Repeat::Raced,
    };

    /// For every error that is not the server's own.
    pub(super) fn of_the_way(error: &sqlx::Error, connections: usize) -> Self {
        match error {
            // Only what an old connection says. A new one that fails is not made better by another one.
            sqlx::Error::Io(error) if is_dead(error.kind()) => Self::dead(connections),
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

fn is_dead(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}
