//! What the set-up of every database has in common.

use super::ConnectError;
#[cfg(any(feature = "mysql", feature = "postgres"))]
use super::pool::{CONNECT, late};

/// The set-up of one kind of database.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub(super) store: &'static str,
    /// Whether by this error a server refuses the user, its password or the database.
    pub(super) denies: fn(&sqlx::Error) -> bool,
}

impl Setup {
    /// A look at a server, which has time to connect and as much again.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) async fn look<T>(
        self,
        look: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        tokio::time::timeout(CONNECT * 2, look)
            .await
            .unwrap_or_else(|elapsed| Err(self.unreachable(late(elapsed))))
    }

    /// There is no connection.
    pub(super) fn unreachable(self, source: sqlx::Error) -> ConnectError {
        let store = self.store;
        if (self.denies)(&source) {
            ConnectError::Authentication { store, source }
        } else {
            ConnectError::Unreachable { store, source }
        }
    }

    /// A statement failed.
    pub(super) fn refused(self, doing: &'static str) -> impl Fn(sqlx::Error) -> ConnectError {
        move |source| ConnectError::Refused {
            store: self.store,
            doing,
            source,
        }
    }
}

/// The migrations that a table of this version has not had, each with the version that it makes.
pub(super) fn missing(migrations: &[String], found: i64) -> impl Iterator<Item = (i64, &str)> {
    (1..)
        .zip(migrations.iter().map(String::as_str))
        .filter(move |(version, _)| *version > found)
}
