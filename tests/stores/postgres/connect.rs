//! An application's own pool, durable sessions, and what an execution costs.

use idempotent_runtime::store::{
    AnyStore, Store,
    conformance::key,
    sql::{ConnectError, postgres::PostgresStore},
};
use sqlx::{Executor as _, postgres::PgPoolOptions};

use super::new_table;
use crate::{
    servers::postgres::Postgres,
    sql::server::ServerKind,
    toolbox::{done, execute, new_claim, replays},
};

#[tokio::test]
async fn the_applications_own_pool_is_used_and_checked() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&server.url()).await.unwrap();
    let builder = PostgresStore::builder().table(new_table());
    let store = builder.from_pool(pool.clone());
    let missing = store.check().await;
    assert!(matches!(missing, Err(ConnectError::MissingTable { .. })));
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();

    pool.execute("set synchronous_commit = off").await.unwrap();
    let error = store.check().await.unwrap_err();
    assert!(error.to_string().contains("synchronous_commit"), "{error}");
}

#[tokio::test]
async fn the_stores_own_sessions_commit_durably_whatever_the_servers_default() {
    let Some(server) = Postgres::with(&["synchronous_commit=off"]) else {
        return;
    };
    let builder = PostgresStore::builder().migrate(true);
    let store = builder.connect(&server.url()).await;
    let store = store.expect("the store sets its sessions");
    store.acquire(&new_claim(key(1))).await.unwrap();
}

/// Counted in the server's log of all statements.
#[tokio::test]
async fn a_first_execution_costs_two_statements_and_a_replay_one() {
    let Some(server) = Postgres::with(&["log_statement=all"]) else {
        return;
    };
    let builder = PostgresStore::builder().migrate(true).connections(1);
    let store = AnyStore::new(builder.connect(&server.url()).await.unwrap());
    let mark = async || {
        let mark = "select 1 -- mark";
        ServerKind::Postgres.run(&server.url(), mark).await;
    };
    let logged = || {
        let log = server.log();
        let (_, since) = log.rsplit_once("mark").expect("the mark");
        let statement =
            |line: &&str| line.contains("LOG:  execute ") || line.contains("LOG:  statement: ");
        let lines = since.lines().filter(statement);
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    // The second time, the statements are prepared.
    for n in 1..=2 {
        mark().await;
        execute(&store, &new_claim(key(n)), &done()).await;
        let first = logged();
        assert_eq!(first.len(), 2, "{first:#?}");

        mark().await;
        replays(&store, key(n), &done()).await;
        let replay = logged();
        assert_eq!(replay.len(), 1, "{replay:#?}");
    }
}
