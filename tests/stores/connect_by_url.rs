//! Stores chosen by URL: the right one comes, or an error that says what to do.

use idempotent_runtime::{
    Fingerprint, StoreKey,
    store::{self, Acquisition, AnyStore, Claim, ConnectError, Store, Token, sql},
};
use sqlx::Connection as _;

use crate::{
    servers::{mariadb::MariaDb, postgres::Postgres, redis::Redis},
    sqlite::DatabaseFile,
};

/// It is the store of this name, and it works.
async fn serves(store: &AnyStore, name: &str) {
    assert_eq!(store.name(), name);
    let claim = Claim::new(
        StoreKey::from_bytes([0xc4; 32]),
        Fingerprint::from_bytes([0; 32]),
        Token::random(),
        std::time::Duration::from_secs(1),
        std::time::Duration::from_secs(1),
    );
    assert_eq!(
        store.acquire(&claim).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
}

#[tokio::test]
async fn memory_and_a_file_need_nothing() {
    serves(&store::connect("memory:").await.unwrap(), "memory").await;
    let file = DatabaseFile::new();
    serves(&store::connect(&file.url()).await.unwrap(), "sqlite").await;
}

#[tokio::test]
async fn redis_is_chosen_by_its_url() {
    let Some(redis) = Redis::shared() else { return };
    serves(&store::connect(&redis.url()).await.unwrap(), "redis").await;
}

#[tokio::test]
async fn postgres_is_chosen_by_its_url_and_needs_its_table() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let mut behind = sqlx::PgConnection::connect(&server.url()).await.unwrap();
    let new = "drop database if exists chosen; create database chosen";
    for statement in new.split(';') {
        sqlx::query(statement).execute(&mut behind).await.unwrap();
    }
    let url = server.url().replace("/postgres?", "/chosen?");
    let error = store::connect(&url).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Sql(sql::ConnectError::MissingTable { .. })
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("migrate"), "{error}");
    store::migrate(&url).await.unwrap();
    serves(&store::connect(&url).await.unwrap(), "postgres").await;
}

#[tokio::test]
async fn mysql_is_chosen_by_its_url_and_needs_its_table() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let mut behind = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
    sqlx::query("create or replace database chosen")
        .execute(&mut behind)
        .await
        .unwrap();
    let url = server
        .url()
        .replace("/mysql?", "/chosen?")
        .replace("mysql:", "mariadb:");
    let error = store::connect(&url).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Sql(sql::ConnectError::MissingTable { .. })
        ),
        "{error:?}"
    );
    store::migrate(&url).await.unwrap();
    serves(&store::connect(&url).await.unwrap(), "mysql").await;
}

#[tokio::test]
async fn wrong_urls_of_known_stores_are_refused_by_them() {
    for url in [
        "postgres://[::1",
        "mysql://localhost",
        "sqlite://",
        "redis://",
    ] {
        let error = store::connect(url).await.unwrap_err();
        assert!(error.to_string().contains("URL"), "{url}: {error}");
    }
}
