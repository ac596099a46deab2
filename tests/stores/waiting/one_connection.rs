//! Duplicates that wait on a store with a single connection: they hold none while they wait.

use std::time::Duration;

use idempotent_runtime::store::{
    AnyStore,
    sql::{mysql::MySqlStore, postgres::PostgresStore},
};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    gauges::waiters,
    servers::{mariadb::MariaDb, postgres::Postgres},
    service::{Executions, Gate, Service, paid},
    sql::new_table,
    sqlite::DatabaseFile,
    toolbox::eventually,
};

/// Fifty duplicates wait, and others are served as if they were not there.
async fn fifty_wait(store: AnyStore) {
    let service = Service::new(store, &Executions::default());
    let gate = Gate::closed();
    let fifty = (0..50).map(|_| service.pay_behind("one", &gate));
    let others = async {
        let waiting = || waiters(service.engine());
        eventually(async || waiting() == 49, || format!("{} wait", waiting())).await;
        let paying = async {
            for n in 0..10 {
                let answer = service.pay(&format!("other-{n}")).await;
                assert_eq!(answer, paid(n + 2, false));
            }
        };
        let all_paid = tokio::time::timeout(Duration::from_secs(10), paying).await;
        gate.open();
        all_paid
    };
    let (answers, others) = tokio::join!(futures_util::future::join_all(fifty), others);
    others.expect("ten others are served while fifty wait");
    let executed = answers.iter().filter(|answer| **answer == paid(1, false));
    assert_eq!(executed.count(), 1, "{answers:?}");
    let replayed = answers.iter().filter(|answer| **answer == paid(1, true));
    assert_eq!(replayed.count(), 49, "{answers:?}");
    assert_eq!(service.executions().count(), 11);
}

/// An application's pool with one connection.
async fn pool_of_one(server: &Postgres) -> PgPool {
    let pool = PgPoolOptions::new().max_connections(1);
    pool.connect(&server.url()).await.expect("a pool")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_one_connection_to_postgres() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let builder = PostgresStore::builder().table(new_table()).migrate(true);
    let store = builder.connections(1).connect(&server.url()).await;
    fifty_wait(AnyStore::new(store.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_the_applications_one_connection_to_postgres() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let pool = pool_of_one(server).await;
    let store = PostgresStore::builder().table(new_table()).from_pool(pool);
    store.migrate().await.unwrap();
    fifty_wait(AnyStore::new(store)).await;
}

/// The listener has a connection of its own, and takes none of the application's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_the_applications_one_connection_to_postgres_and_are_notified() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let pool = pool_of_one(server).await;
    let builder = PostgresStore::builder().table(new_table()).notify(true);
    let store = builder.from_pool(pool.clone());
    store.migrate().await.unwrap();
    fifty_wait(AnyStore::new(store)).await;
    pool.acquire()
        .await
        .expect("the connection is the application's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_one_connection_to_mysql() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let builder = MySqlStore::builder().table(new_table()).migrate(true);
    let store = builder.connections(1).connect(&server.url()).await;
    fifty_wait(AnyStore::new(store.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_one_sqlite_file() {
    let file = DatabaseFile::new();
    fifty_wait(file.open().await).await;
}
