//! The conformance suite on MariaDB, and what only that store promises. Each test has a table or a server
//! of its own.

use std::time::Duration;

use idempotent_runtime::{
    StoreKey,
    store::{
        conformance::Harness,
        sql::{TableName, mysql::MySqlStore},
    },
};
use sqlx::{Connection, MySqlConnection};

use crate::{servers::mariadb::MariaDb, sql::new_table};

mod connect;
mod durability;
mod packets;
mod prepared_statements;
mod purge;

/// A table of its own.
pub(crate) struct MariaDbHarness {
    store: MySqlStore,
    table: TableName,
}

impl MariaDbHarness {
    fn server() -> &'static MariaDb {
        MariaDb::shared().expect("looked for before the test began")
    }

    async fn connect(table: &TableName) -> MySqlStore {
        let builder = MySqlStore::builder()
            .table(table.clone())
            .connections(8)
            .migrate(true);
        builder
            .connect(&Self::server().url())
            .await
            .expect("a store")
    }

    /// Runs something on a server.
    pub(crate) async fn set(server: &MariaDb, statement: &str) {
        let mut behind = MySqlConnection::connect(&server.url())
            .await
            .expect("a connection");
        sqlx::Executor::execute(&mut behind, statement)
            .await
            .expect("what was asked");
    }

    /// A connection behind the store's back.
    async fn behind() -> MySqlConnection {
        MySqlConnection::connect(&Self::server().url())
            .await
            .expect("a connection")
    }
}

impl Harness for MariaDbHarness {
    type Store = MySqlStore;

    async fn open() -> Self {
        let table = new_table();
        Self {
            store: Self::connect(&table).await,
            table,
        }
    }

    fn store(&self) -> &MySqlStore {
        &self.store
    }

    async fn second_handle(&self) -> MySqlStore {
        Self::connect(&self.table).await
    }

    async fn advance(&self, by: Duration) {
        let shift = format!(
            "update {} set lease_until = lease_until - interval ? microsecond, \
             expires_at = expires_at - interval ? microsecond",
            self.table
        );
        let by = i64::try_from(by.as_micros()).expect("a duration of the suite");
        sqlx::query(&shift)
            .bind(by)
            .bind(by)
            .execute(&mut Self::behind().await)
            .await
            .expect("times move");
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        sqlx::query(&format!(
            "update {} set response = ? where store_key = ?",
            self.table
        ))
        .bind(stored)
        .bind(&key.as_bytes()[..])
        .execute(&mut Self::behind().await)
        .await
        .expect("bytes change");
        true
    }
}

mod conformance {
    use crate::servers::mariadb::MariaDb;

    idempotent_runtime::store_conformance!(super::MariaDbHarness, if MariaDb::shared().is_some());
}

#[test]
fn the_mysql_store_follows_the_model() {
    if MariaDb::shared().is_some() {
        crate::model::play::<MariaDbHarness>(40).unwrap();
    }
}
