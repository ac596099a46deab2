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
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use crate::{
    proxy::{Proxy, Treatment},
    servers::mariadb::MariaDb,
    sql::{new_table, server::ServerKind},
};

mod durability;
mod packets;
mod partitioned;
mod prepared_statements;
mod purge;
mod round_trips;

/// A store on the server that all tests share, with a table of its own.
pub(crate) struct MariaDbHarness {
    store: MySqlStore,
    table: TableName,
}

impl MariaDbHarness {
    fn server() -> &'static MariaDb {
        MariaDb::shared().expect("checked before the test began")
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

    /// A connection beside the store's.
    async fn connection() -> MySqlConnection {
        let connection = MySqlConnection::connect(&Self::server().url()).await;
        connection.expect("a connection")
    }
}

/// Makes a database and a user with all rights on it, and no others.
pub(crate) async fn make_user(server: &MariaDb) {
    for statement in [
        "create database orders",
        "create user app@'127.0.0.1' identified by 'pw'",
        "grant all on orders.* to app@'127.0.0.1'",
    ] {
        run(server, statement).await;
    }
}

/// That user's URL of that database, by this port.
pub(crate) fn user_url(port: u16) -> String {
    format!("mysql://app:pw@127.0.0.1:{port}/orders")
}

/// Runs a statement on a server, beside the store.
async fn run(server: &MariaDb, statement: &str) {
    ServerKind::MariaDb.run(&server.url(), statement).await;
}

impl Harness for MariaDbHarness {
    type Store = MySqlStore;
    const ADMINISTRABLE: bool = true;
    const STEPS: bool = true;
    const INSPECTABLE: bool = true;

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
             expires_at = expires_at - interval ? microsecond, purge_at = purge_at - interval ? microsecond, \
             created_at = created_at - interval ? microsecond, completed_at = completed_at - interval ? microsecond",
            self.table
        );
        let by = i64::try_from(by.as_micros()).expect("a duration of the suite");
        sqlx::query(AssertSqlSafe(shift))
            .bind(by)
            .bind(by)
            .bind(by)
            .bind(by)
            .bind(by)
            .execute(&mut Self::connection().await)
            .await
            .expect("times move");
    }

    async fn losing_handle(&self, key: &StoreKey) -> Option<MySqlStore> {
        let proxy = Proxy::to(Self::server().port());
        let url = MariaDb::url_of(proxy.port());
        let store = MySqlStore::builder().table(self.table.clone());
        let store = store.connect(&url).await.expect("a store");
        proxy.treat(*key.as_bytes(), 0, Treatment::LoseReply);
        Some(store)
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        sqlx::query(AssertSqlSafe(format!(
            "update {} set response = ? where store_key = ?",
            self.table
        )))
        .bind(stored)
        .bind(&key.as_bytes()[..])
        .execute(&mut Self::connection().await)
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
