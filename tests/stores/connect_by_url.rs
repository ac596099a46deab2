//! Stores chosen by URL: the right one is opened, or the error says what to do.

use idempotent_runtime::store::{self, AnyStore, ConnectError, Store, conformance::key, sql};

use crate::{
    servers::redis::Redis,
    sql::server::{ServerKind, on_each_server},
    sqlite::DatabaseFile,
    toolbox::{FIRST, new_claim},
};

/// It is the store of this name, and it works.
async fn serves(store: &AnyStore, name: &str) {
    assert_eq!(store.name(), name);
    assert_eq!(store.acquire(&new_claim(key(0xc4))).await.unwrap(), FIRST);
}

#[tokio::test]
async fn memory_and_a_file_need_no_migration() {
    serves(&store::connect("memory:").await.unwrap(), "memory").await;
    let file = DatabaseFile::new();
    serves(&store::connect(&file.url()).await.unwrap(), "sqlite").await;
}

#[tokio::test]
async fn redis_is_chosen_by_its_url() {
    let Some(redis) = Redis::shared() else { return };
    serves(&store::connect(&redis.url()).await.unwrap(), "redis").await;
}

on_each_server! {
    a_sql_store_is_chosen_by_its_url_and_needs_a_migration,
}

async fn a_sql_store_is_chosen_by_its_url_and_needs_a_migration(kind: ServerKind) {
    let Some(shared) = kind.shared() else { return };
    let (name, url) = match kind {
        ServerKind::Postgres => ("postgres", shared.replace("/postgres?", "/chosen?")),
        ServerKind::MariaDb => {
            let url = shared.replace("/mysql?", "/chosen?");
            ("mysql", url.replace("mysql:", "mariadb:"))
        }
    };
    for statement in ["drop database if exists chosen", "create database chosen"] {
        kind.run(&shared, statement).await;
    }
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
    serves(&store::connect(&url).await.unwrap(), name).await;
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
