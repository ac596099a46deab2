//! Duplicates that wait in another engine than the one that executes, with connections of its own, on SQL stores.

use idempotent_runtime::store::{
    AnyStore,
    sql::{mysql::MySqlStore, postgres::PostgresStore},
};

use super::{NOTIFIED, POLLED};
use crate::{
    proxy::Proxy,
    servers::{mariadb::MariaDb, postgres::Postgres},
    service::{Executions, Service, latencies},
    sql::new_table,
    sql::server::ServerKind,
    sqlite::DatabaseFile,
    toolbox::{eventually, within},
};

/// The latencies of five keys between engines on these stores.
async fn between(first: AnyStore, second: AnyStore) -> Vec<std::time::Duration> {
    let executions = Executions::default();
    let services = [first, second].map(|store| Service::new(store, &executions));
    latencies(&services[0], &services[1], 5).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_wakes_another_engine_where_it_notifies() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    within(NOTIFIED, async || {
        let table = new_table();
        let connect = async || {
            let builder = PostgresStore::builder().table(table.clone());
            let builder = builder.migrate(true).notify(true);
            AnyStore::new(builder.connect(&server.url()).await.expect("a store"))
        };
        between(connect().await, connect().await).await
    })
    .await;
}

/// The server is gone without having closed the connection, as behind a firewall that dropped it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_listener_on_a_dead_connection_makes_a_new_one() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let proxy = Proxy::to(server.port());
    let connect = async |port| {
        let builder = PostgresStore::builder().migrate(true).notify(true);
        builder
            .connect(&Postgres::url_of(port))
            .await
            .expect("a store")
    };
    let until_listening = async |listeners: i64| {
        let listening = "select count(*) from pg_stat_activity where query like 'LISTEN%' and application_name = \
                         'idempotent'";
        let count = async || ServerKind::Postgres.count(&server.url(), listening).await;
        let missing = || format!("fewer than {listeners} listen");
        eventually(async || count().await >= listeners, missing).await;
    };
    let executions = Executions::default();
    let first = Service::new(connect(server.port()).await, &executions);
    let second = Service::new(connect(proxy.port()).await, &executions);
    until_listening(2).await;
    let before = proxy.accepted();
    // The connection stays open, and nothing comes through it.
    proxy.silence(true);
    let replaced = async || proxy.accepted() > before;
    eventually(replaced, || "the connection is not replaced".to_owned()).await;
    proxy.silence(false);
    proxy.cut();
    // The new one: the last statement of the other listener is its check of the connection, not LISTEN.
    until_listening(1).await;
    within(NOTIFIED, async || latencies(&first, &second, 2).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_engine_polls_sqlite() {
    within(POLLED, async || {
        let file = DatabaseFile::new();
        let open = async || AnyStore::new(file.open().await);
        between(open().await, open().await).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_engine_polls_mysql() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    within(POLLED, async || {
        let table = new_table();
        let connect = async || {
            let builder = MySqlStore::builder().table(table.clone()).migrate(true);
            AnyStore::new(builder.connect(&server.url()).await.expect("a store"))
        };
        between(connect().await, connect().await).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_engine_polls_postgres_where_it_does_not_notify() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    within(POLLED, async || {
        let table = new_table();
        let connect = async || {
            let builder = PostgresStore::builder().table(table.clone()).migrate(true);
            AnyStore::new(builder.connect(&server.url()).await.expect("a store"))
        };
        between(connect().await, connect().await).await
    })
    .await;
}
