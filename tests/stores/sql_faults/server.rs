//! The servers that are killed, and the stores that keep their records there.

use std::time::Duration;

use idempotent_runtime::store::{
    Store,
    conformance::Harness,
    sql::{mysql::MySqlStore, postgres::PostgresStore},
};
use sqlx::{mysql::MySqlPoolOptions, postgres::PgPoolOptions};

use crate::{
    mysql::OnMariaDb,
    postgres::OnPostgres,
    servers::{mariadb::MariaDb, postgres::Postgres},
};

/// A server that can be killed, and the store that keeps its records there.
pub(crate) trait Server: Send + Sync + Sized + 'static {
    type Store: Store + Clone;
    /// For the suite's claims.
    type Claims: Harness;

    fn start() -> Option<Self>;
    fn port(&self) -> u16;
    fn restart(&mut self);
    fn kill(&mut self);
    /// A store by way of this port, with at most so many connections.
    fn store(&self, port: u16, connections: usize) -> impl Future<Output = Self::Store> + Send;
    /// Stores that give up on a statement after a second, each with one connection by way of this port: its own, and the
    /// application's.
    fn impatient(&self, port: u16) -> impl Future<Output = [Self::Store; 2]> + Send;
    async fn close(store: &Self::Store);
}

macro_rules! servers {
    ($($server:ident: $store:ident, $claims:ident, $pool:ident;)*) => {$(
        impl Server for $server {
            type Store = $store;
            type Claims = $claims;

            fn start() -> Option<Self> {
                Self::start()
            }

            fn port(&self) -> u16 {
                self.port()
            }

            fn restart(&mut self) {
                self.restart();
            }

            fn kill(&mut self) {
                self.kill();
            }

            async fn store(&self, port: u16, connections: usize) -> $store {
                let builder = $store::builder()
                    .connections(connections)
                    .migrate(true);
                builder.connect(&Self::url_of(port)).await.expect("a store")
            }

            async fn impatient(&self, port: u16) -> [$store; 2] {
                let builder = || $store::builder().time_out(Duration::from_millis(500));
                let url = Self::url_of(port);
                let own = builder().connections(1).migrate(true).connect(&url);
                let pool = $pool::new()
                    .max_connections(1)
                    .test_before_acquire(false);
                let pool = pool.connect(&url).await.expect("a pool");
                [own.await.expect("a store"), builder().from_pool(pool)]
            }

            async fn close(store: &$store) {
                store.close().await;
            }
        }
    )*};
}

servers! {
    Postgres: PostgresStore, OnPostgres, PgPoolOptions;
    MariaDb: MySqlStore, OnMariaDb, MySqlPoolOptions;
}
