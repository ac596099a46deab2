//! Which URLs and servers are refused, with which error, and which names a table may have.

use idempotent_runtime::store::{Store, conformance::key, sql::ConnectError};
use sqlx::Executor as _;

use super::{
    new_table,
    server::{OpenOptions, ServerKind, on_each_server, with_store},
};
use crate::{
    servers::free_port,
    toolbox::{FIRST, chain, new_claim},
};

on_each_server! {
    wrong_urls_are_refused_without_showing_the_password,
    a_server_that_does_not_run_is_unreachable,
    a_wrong_password_user_or_database_is_refused,
    a_table_may_have_another_schema_and_any_name,
    the_applications_own_pool_is_used_and_checked,
}

async fn refusal(kind: ServerKind, url: &str) -> ConnectError {
    kind.connect(url).await.expect_err("must not connect")
}

async fn wrong_urls_are_refused_without_showing_the_password(kind: ServerKind) {
    let urls = match kind {
        ServerKind::Postgres => [
            "",
            "postgres",
            "mysql://root:hunter2@localhost/x",
            "postgres://u:hunter2@[::1/x",
        ]
        .as_slice(),
        ServerKind::MariaDb => &[
            "",
            "mysql",
            "postgres://u:hunter2@localhost/x",
            "mysql://u:hunter2@[::1/x",
            // Without a database.
            "mysql://u:hunter2@localhost",
        ],
    };
    for url in urls {
        let error = refusal(kind, url).await;
        assert!(
            matches!(error, ConnectError::Url { .. }),
            "{url}: {error:?}"
        );
        let text = format!("{error:?} {}", chain(&error));
        assert!(!text.contains("hunter2"), "{text}");
    }
}

async fn a_server_that_does_not_run_is_unreachable(kind: ServerKind) {
    let port = free_port();
    let url = match kind {
        ServerKind::Postgres => format!("postgres://test@127.0.0.1:{port}/postgres"),
        ServerKind::MariaDb => format!("mariadb://root@127.0.0.1:{port}/mysql"),
    };
    let error = refusal(kind, &url).await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    let text = chain(&error);
    assert!(text.contains("Connection refused"), "{text}");
}

async fn a_wrong_password_user_or_database_is_refused(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let (user, urls) = match kind {
        ServerKind::Postgres => (
            "do $$ begin create role secretive login password 'right'; \
             exception when duplicate_object then end $$",
            [
                url.replace("test@", "secretive:wrong@"),
                url.replace("test@", "nobody@"),
                url.replace("/postgres?", "/nothing?"),
            ],
        ),
        ServerKind::MariaDb => (
            "create or replace user secretive@'127.0.0.1' identified by 'right'",
            [
                url.replace("root@", "secretive:wrong@"),
                // The password is right, and the user may not use this database.
                url.replace("root@", "secretive:right@"),
                url.replace("/mysql?", "/nothing?"),
            ],
        ),
    };
    kind.run(&url, user).await;
    for url in urls {
        let error = refusal(kind, &url).await;
        assert!(
            matches!(error, ConnectError::Authentication { .. }),
            "{url}: {error:?}"
        );
        let text = chain(&error);
        assert!(!text.contains("wrong"), "{text}");
    }
}

/// On MySQL a schema is a database.
async fn a_table_may_have_another_schema_and_any_name(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let (schema, quoted) = match kind {
        ServerKind::Postgres => (
            "create schema if not exists \"Billing\"",
            "\"Billing\".\"order\"",
        ),
        ServerKind::MariaDb => (
            "create database if not exists `Billing`",
            "`Billing`.`order`",
        ),
    };
    kind.run(&url, schema).await;
    let order = "Billing.order".parse().unwrap();
    let store = kind.open(&url, &order, OpenOptions::MIGRATE).await.unwrap();
    assert_eq!(store.acquire(&new_claim(key(1))).await.unwrap(), FIRST);
    store.purge_expired(10).await.unwrap();
    let count = format!("select count(*) from {quoted}");
    assert_eq!(kind.count(&url, &count).await, 1);

    let nowhere = "nowhere.records".parse().unwrap();
    let opened = kind.open(&url, &nowhere, OpenOptions::MIGRATE).await;
    let text = chain(&opened.expect_err("there is no such schema"));
    assert!(text.contains("nowhere"), "{text}");
}

async fn the_applications_own_pool_is_used_and_checked(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let (weaken, setting) = match kind {
        ServerKind::Postgres => ("set synchronous_commit = off", "synchronous_commit"),
        ServerKind::MariaDb => ("set autocommit = 0", "autocommit"),
    };
    with_store!(kind, SqlStore, PoolOptions => {
        let pool = PoolOptions::new().max_connections(1);
        let pool = pool.connect(&url).await.unwrap();
        let builder = SqlStore::builder().table(new_table());
        let store = builder.from_pool(pool.clone());
        let missing = store.check().await;
        assert!(matches!(missing, Err(ConnectError::MissingTable { .. })));
        store.migrate().await.unwrap();
        store.check().await.unwrap();
        store.acquire(&new_claim(key(1))).await.unwrap();

        pool.execute(weaken).await.unwrap();
        let error = store.check().await.unwrap_err();
        assert!(error.to_string().contains(setting), "{error}");
    });
}
