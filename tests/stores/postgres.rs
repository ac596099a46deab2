//! The conformance suite on PostgreSQL, and what only that store promises. Each test has a table or a server
//! of its own.

use std::time::Duration;

use idempotent_runtime::{
    StoreKey,
    store::{
        conformance::Harness,
        sql::{TableName, postgres::PostgresStore},
    },
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    proxy::{Proxy, Treatment},
    servers::postgres::Postgres,
    sql::new_table,
};

mod durability;
mod purge;
mod purge_rescan;
mod round_trips;
mod updates;

/// A store on the server that all tests share, with a table of its own.
pub(crate) struct PostgresHarness {
    store: PostgresStore,
    table: TableName,
}

impl PostgresHarness {
    fn server() -> &'static Postgres {
        Postgres::shared().expect("checked before the test began")
    }

    async fn connect(table: &TableName) -> PostgresStore {
        let builder = PostgresStore::builder()
            .table(table.clone())
            .connections(8)
            .migrate(true);
        builder
            .connect(&Self::server().url())
            .await
            .expect("a store")
    }

    /// A connection beside the store's.
    async fn connection() -> PgConnection {
        let connection = PgConnection::connect(&Self::server().url()).await;
        connection.expect("a connection")
    }
}

impl Harness for PostgresHarness {
    type Store = PostgresStore;
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

    fn store(&self) -> &PostgresStore {
        &self.store
    }

    async fn second_handle(&self) -> PostgresStore {
        Self::connect(&self.table).await
    }

    async fn advance(&self, by: Duration) {
        let shift = format!(
            "update {} set lease_until = lease_until - $1 * interval '1 microsecond', \
             expires_at = expires_at - $1 * interval '1 microsecond', \
             purge_at = purge_at - $1 * interval '1 microsecond', \
             created_at = created_at - $1 * interval '1 microsecond', \
             completed_at = completed_at - $1 * interval '1 microsecond'",
            self.table
        );
        sqlx::query(AssertSqlSafe(shift))
            .bind(i64::try_from(by.as_micros()).expect("a duration of the suite"))
            .execute(&mut Self::connection().await)
            .await
            .expect("times move");
    }

    async fn losing_handle(&self, key: &StoreKey) -> Option<PostgresStore> {
        let proxy = Proxy::to(Self::server().port());
        let url = Postgres::url_of(proxy.port());
        let store = PostgresStore::builder().table(self.table.clone());
        let store = store.connect(&url).await.expect("a store");
        proxy.treat(*key.as_bytes(), 0, Treatment::LoseReply);
        Some(store)
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        sqlx::query(AssertSqlSafe(format!(
            "update {} set response = $2 where store_key = $1",
            self.table
        )))
        .bind(&key.as_bytes()[..])
        .bind(stored)
        .execute(&mut Self::connection().await)
        .await
        .expect("bytes change");
        true
    }
}

mod conformance {
    use crate::servers::postgres::Postgres;

    idempotent_runtime::store_conformance!(super::PostgresHarness, if Postgres::shared().is_some());
}

#[test]
fn the_postgres_store_follows_the_model() {
    if Postgres::shared().is_some() {
        crate::model::play::<PostgresHarness>(40).unwrap();
    }
}
