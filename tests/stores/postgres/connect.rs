//! What is wrong before the first verb, and what the first ones cost.

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, Write,
    conformance::{key, response},
    sql::{ConnectError, TableName, postgres::PostgresStore},
};
use sqlx::{Connection, Executor as _, PgConnection, postgres::PgPoolOptions};

use super::{PostgresHarness, new_table};
use crate::{
    servers::{free_port, postgres::Postgres},
    toolbox::{chain, new_claim},
};

async fn refusal(url: &str) -> ConnectError {
    PostgresStore::connect(url)
        .await
        .expect_err("must not connect")
}

#[tokio::test]
async fn wrong_urls_are_refused_without_showing_the_password() {
    for url in [
        "",
        "postgres",
        "mysql://root:hunter2@localhost/x",
        "postgres://u:hunter2@[::1/x",
    ] {
        let error = refusal(url).await;
        assert!(
            matches!(error, ConnectError::Url { .. }),
            "{url}: {error:?}"
        );
        assert!(
            !format!("{error:?} {}", chain(&error)).contains("hunter2"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let error = refusal(&format!(
        "postgres://test@127.0.0.1:{}/postgres",
        free_port()
    ))
    .await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(
        chain(&error).contains("Connection refused"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_wrong_password_user_or_database_is_refused() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let setup = "do $$ begin create role secretive login password 'right'; exception when duplicate_object then end $$";
    PostgresHarness::behind()
        .await
        .execute(setup)
        .await
        .unwrap();
    let port = server.port();
    for url in [
        format!("postgres://secretive:wrong@127.0.0.1:{port}/postgres"),
        format!("postgres://nobody@127.0.0.1:{port}/postgres"),
        format!("postgres://test@127.0.0.1:{port}/nothing"),
    ] {
        let error = refusal(&url).await;
        assert!(
            matches!(error, ConnectError::Authentication { .. }),
            "{url}: {error:?}"
        );
        assert!(!chain(&error).contains("wrong"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_table_has_a_schema_and_any_name() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    PostgresHarness::behind()
        .await
        .execute("create schema if not exists \"Billing\"")
        .await
        .unwrap();
    let table: TableName = "Billing.order".parse().unwrap();
    let store = PostgresStore::builder()
        .table(table)
        .migrate(true)
        .connect(&server.url())
        .await
        .unwrap();
    let owner = new_claim(key(1));
    assert_eq!(
        store.acquire(&owner).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
    store.purge_expired(10).await.unwrap();
    let count = "select count(*) from \"Billing\".\"order\"";
    let records: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut PostgresHarness::behind().await)
        .await
        .unwrap();
    assert_eq!(records, 1);

    let nowhere = PostgresStore::builder()
        .table("nowhere.records".parse().unwrap())
        .migrate(true);
    let error = nowhere.connect(&server.url()).await.unwrap_err();
    assert!(
        chain(&error).contains("schema \"nowhere\" does not exist"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn the_applications_own_pool_is_used_and_looked_at() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    let store = PostgresStore::builder()
        .table(new_table())
        .from_pool(pool.clone());
    assert!(matches!(
        store.check().await,
        Err(ConnectError::MissingTable { .. })
    ));
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();

    pool.execute("set synchronous_commit = off").await.unwrap();
    let error = store.check().await.unwrap_err();
    assert!(error.to_string().contains("synchronous_commit"), "{error}");
}

#[tokio::test]
async fn the_stores_own_sessions_commit_durably_whatever_the_server_says() {
    let Some(server) = Postgres::with(&["synchronous_commit=off"]) else {
        return;
    };
    let builder = PostgresStore::builder().migrate(true);
    let store = builder
        .connect(&server.url())
        .await
        .expect("its sessions are set");
    store.acquire(&new_claim(key(1))).await.unwrap();
}

/// Counted by the server, which logs every statement it is asked to run.
#[tokio::test]
async fn a_first_execution_costs_two_statements_and_a_replay_one() {
    let Some(server) = Postgres::with(&["log_statement=all"]) else {
        return;
    };
    let store = PostgresStore::builder()
        .migrate(true)
        .connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    let ran = |what: &str| {
        let log = server.log();
        let (_, since) = log.rsplit_once("mark").unwrap_or(("", &log));
        let statements = since
            .lines()
            .filter(|line| line.contains("LOG:  execute ") || line.contains("LOG:  statement: "));
        let statements: Vec<_> = statements.collect();
        (statements.len(), format!("{what}: {statements:#?}"))
    };
    let mark = async || {
        let mut behind = PgConnection::connect(&server.url()).await.unwrap();
        sqlx::raw_sql("select 1 -- mark")
            .execute(&mut behind)
            .await
            .unwrap();
    };
    let answer = Outcome::Response(response(201, &[], b"done"));
    // The second time, the statements are prepared.
    for n in 1..=2 {
        let owner = new_claim(key(n));
        mark().await;
        assert_eq!(
            store.acquire(&owner).await.unwrap(),
            Acquisition::Acquired { attempt: 1 }
        );
        assert_eq!(
            store.complete(&owner.held(), &answer).await.unwrap(),
            Write::Applied
        );
        let (count, what) = ran("first execution");
        assert_eq!(count, 2, "{what}");

        mark().await;
        let again = store.acquire(&new_claim(key(n))).await.unwrap();
        assert_eq!(again, Acquisition::Completed(answer.clone()));
        let (count, what) = ran("replay");
        assert_eq!(count, 1, "{what}");
    }
}
