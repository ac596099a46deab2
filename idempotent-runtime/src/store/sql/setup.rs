//! The parts of the set-up that all databases share.

use sqlx::SqlStr;

use super::ConnectError;
#[cfg(any(feature = "mysql", feature = "postgres"))]
use super::pool::{CONNECT, timed_out};

/// The set-up of one kind of database.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub(super) store: &'static str,
    /// Whether this error means that the server refuses the user, its password or the database.
    pub(super) is_denial: fn(&sqlx::Error) -> bool,
}

impl Setup {
    /// Bounds a server probe by twice the time to connect.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn bounded<T>(
        self,
        probe: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        tokio::time::timeout(CONNECT * 2, probe)
            .await
            .unwrap_or_else(|elapsed| Err(self.unreachable(timed_out(elapsed))))
    }

    /// The error for a connection that could not be made.
    pub(super) fn unreachable(self, source: sqlx::Error) -> ConnectError {
        let store = self.store;
        if (self.is_denial)(&source) {
            ConnectError::Authentication { store, source }
        } else {
            ConnectError::Unreachable { store, source }
        }
    }

    /// The error for a statement that failed.
    pub(super) fn refused(self, doing: &'static str) -> impl Fn(sqlx::Error) -> ConnectError {
        move |source| ConnectError::Refused {
            store: self.store,
            doing,
            source,
        }
    }
}

/// The migrations that a table of this version has not had, each with the version that it makes.
pub(super) fn pending(migrations: &[SqlStr], found: i64) -> impl Iterator<Item = (i64, &SqlStr)> {
    (1..)
        .zip(migrations)
        .filter(move |(version, _)| *version > found)
}
