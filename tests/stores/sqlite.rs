//! The conformance suite on SQLite files, and what only that store promises.

use std::{path::PathBuf, time::Duration};

use idempotent_runtime::{
    StoreKey,
    store::{AnyStore, conformance::Harness, sql::sqlite::SqliteStore},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqliteConnection};

use crate::servers::Folder;

mod connect;
#[cfg(target_os = "linux")]
mod disk_errors;
mod faults;

/// A store on a database file of its own.
pub(crate) struct SqliteHarness {
    store: SqliteStore,
    file: DatabaseFile,
}

/// A database file in a folder of its own.
pub(crate) struct DatabaseFile(Folder);

impl DatabaseFile {
    pub(crate) fn new() -> Self {
        Self(Folder::new("sqlite"))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("records.db")
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.path().display())
    }

    /// Opens a store. Its type is erased, so that what a test does with it is compiled once for all stores.
    pub(crate) async fn open(&self) -> AnyStore {
        AnyStore::new(self.open_sqlite().await)
    }

    async fn open_sqlite(&self) -> SqliteStore {
        let opened = SqliteStore::connect(&self.url()).await;
        opened.expect("the file opens")
    }

    /// A connection beside the store's.
    pub(crate) async fn connect(&self) -> SqliteConnection {
        let connection = SqliteConnection::connect(&self.url()).await;
        connection.expect("a connection")
    }

    /// Runs a statement beside the store.
    pub(crate) async fn run(&self, statement: &str) {
        let run = self
            .connect()
            .await
            .execute(AssertSqlSafe(statement))
            .await
            .map(drop);
        run.expect("the statement runs");
    }
}

impl Harness for SqliteHarness {
    type Store = SqliteStore;
    const ADMINISTRABLE: bool = true;
    const STEPS: bool = true;
    const INSPECTABLE: bool = true;

    async fn open() -> Self {
        let file = DatabaseFile::new();
        Self {
            store: file.open_sqlite().await,
            file,
        }
    }

    fn store(&self) -> &SqliteStore {
        &self.store
    }

    async fn second_handle(&self) -> SqliteStore {
        self.file.open_sqlite().await
    }

    async fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).expect("a duration of the suite");
        let shift = "update idempotency_records set lease_until = lease_until - ?1, expires_at = expires_at - ?1, \
                     purge_at = purge_at - ?1, created_at = created_at - ?1, completed_at = completed_at - ?1";
        sqlx::query(shift)
            .bind(by)
            .execute(&mut self.file.connect().await)
            .await
            .expect("times move");
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        sqlx::query("update idempotency_records set response = ?2 where store_key = ?1")
            .bind(&key.as_bytes()[..])
            .bind(stored)
            .execute(&mut self.file.connect().await)
            .await
            .expect("bytes change");
        true
    }
}

mod conformance {
    idempotent_runtime::store_conformance!(super::SqliteHarness);
}

#[test]
fn the_sqlite_store_follows_the_model() {
    crate::model::play::<SqliteHarness>(60).unwrap();
}
