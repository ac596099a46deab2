//! Servers that could lose what they acknowledge, or do not take writes.

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, StoreErrorKind, Write,
    conformance::key,
    sql::{ConnectError, mysql::MySqlStore},
};
use sqlx::{Executor as _, mysql::MySqlPoolOptions};

use super::{MariaDbHarness, new_table};
use crate::{
    observe::Log,
    proxy::Proxy,
    servers::mariadb::MariaDb,
    toolbox::{chain, new_claim},
};

#[tokio::test]
async fn a_server_that_loses_or_cannot_take_what_it_is_sent_is_refused() {
    let settings = [
        "--innodb-flush-log-at-trx-commit=2",
        "--max-allowed-packet=1048576",
    ];
    let Some(server) = MariaDb::with(&settings) else {
        return;
    };
    let builder = || {
        MySqlStore::builder()
            .migrate(true)
            .largest_response(500_000)
    };
    let error = builder().connect(&server.url()).await.unwrap_err();
    assert!(
        error.to_string().contains("innodb_flush_log_at_trx_commit"),
        "{error}"
    );
    let builder = || builder().accept_weaker_durability();
    builder()
        .connect(&server.url())
        .await
        .expect("as it was told to");
    let error = builder()
        .largest_response(1 << 20)
        .connect(&server.url())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::PacketTooSmall {
                bytes: 1_048_576,
                ..
            }
        ),
        "{error:?}"
    );

    MariaDbHarness::set(&server, "set global read_only = 1").await;
    let error = builder().connect(&server.url()).await.unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}

/// With a binary log a commit is as durable as that log.
#[tokio::test]
async fn a_binary_log_that_is_not_flushed_is_refused() {
    let Some(server) = MariaDb::with(&["--log-bin", "--sync-binlog=0", "--server-id=1"]) else {
        return;
    };
    let builder = || MySqlStore::builder().migrate(true);
    let error = builder().connect(&server.url()).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NotDurable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("sync_binlog"), "{error}");
    let weak = builder().accept_weaker_durability();
    weak.connect(&server.url())
        .await
        .expect("as it was told to");
    MariaDbHarness::set(&server, "set global sync_binlog = 1").await;
    builder()
        .connect(&server.url())
        .await
        .expect("flushed with each commit");
}

/// What a crash may take back then is told where the server is chosen.
#[tokio::test]
async fn a_missing_binary_log_is_warned_of() {
    let (Some(without), Some(with)) = (MariaDb::shared(), MariaDb::flushing()) else {
        return;
    };
    let said = async |server: &MariaDb, weak: bool| {
        let (log, _collected) = Log::collect();
        let builder = MySqlStore::builder().table(new_table()).migrate(true);
        let builder = if weak {
            builder.accept_weaker_durability()
        } else {
            builder
        };
        builder.connect(&server.url()).await.unwrap();
        let text = log.text();
        let warnings = text.lines().filter(|line| line.contains("WARN"));
        warnings.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let warnings = said(without, false).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("no binary log"), "{warnings:?}");
    assert_eq!(said(without, true).await, [""; 0]);
    assert_eq!(said(&with, false).await, [""; 0]);
}

/// Under `read committed` such a binary log takes no writes at all.
#[tokio::test]
async fn a_binary_log_of_statements_is_refused() {
    let settings = [
        "--log-bin",
        "--sync-binlog=1",
        "--server-id=1",
        "--binlog-format=STATEMENT",
    ];
    let Some(server) = MariaDb::with(&settings) else {
        return;
    };
    let pool = MySqlPoolOptions::new().max_connections(1);
    let pool = pool.connect(&server.url()).await.unwrap();
    let store = MySqlStore::builder().from_pool(pool.clone());
    store
        .migrate()
        .await
        .expect("repeatable read can be logged");
    store.check().await.expect("repeatable read can be logged");
    let error = MySqlStore::connect(&server.url()).await.unwrap_err();
    assert!(error.to_string().contains("binlog_format"), "{error}");
    let isolation = "set session transaction isolation level read committed";
    pool.execute(isolation).await.unwrap();
    let error = store.acquire(&new_claim(key(1))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);

    MariaDbHarness::set(&server, "set global binlog_format = MIXED").await;
    let store = MySqlStore::connect(&server.url()).await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();
}

/// The address leads to another server, as after a failover that is under way: it is read-only, and its sessions are
/// not kept.
#[tokio::test]
async fn a_server_that_became_read_only_is_left_for_the_one_that_is_not() {
    let (Some(primary), Some(replica)) = (MariaDb::start(), MariaDb::start()) else {
        return;
    };
    for server in [&primary, &replica] {
        // A user with SUPER may write to a server that is read-only.
        for statement in [
            "create database shop",
            "create user app@'127.0.0.1' identified by 'pw'",
            "grant all on shop.* to app@'127.0.0.1'",
        ] {
            MariaDbHarness::set(server, statement).await;
        }
        let url = format!("mysql://app:pw@127.0.0.1:{}/shop", server.port());
        let made = MySqlStore::builder().migrate(true).connect(&url).await;
        made.expect("a table").close().await;
    }
    MariaDbHarness::set(&replica, "set global read_only = 1").await;
    let proxy = Proxy::to(primary.port());
    let url = format!("mysql://app:pw@127.0.0.1:{}/shop", proxy.port());
    let store = MySqlStore::builder().connections(2).connect(&url).await;
    let store = store.expect("the primary");
    let owner = new_claim(key(1));
    let first = Acquisition::Acquired { attempt: 1 };
    assert_eq!(store.acquire(&owner).await.unwrap(), first);

    proxy.move_to(replica.port());
    proxy.cut();
    let other = new_claim(key(2));
    let error = store.acquire(&other).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(chain(&error).contains("read-only"), "{}", chain(&error));
    let error = store.complete(&owner.held(), &Outcome::Tombstone).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);

    // Nothing is cut here: what led to the replica was given up by the store.
    proxy.move_to(primary.port());
    let completed = store.complete(&owner.held(), &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
    assert_eq!(store.acquire(&other).await.unwrap(), first);
}

#[tokio::test]
async fn sessions_of_the_stores_own_write_where_others_read_by_default() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    MariaDbHarness::set(&server, "set global tx_read_only = 1").await;
    let builder = MySqlStore::builder().migrate(true);
    let store = builder.connect(&server.url()).await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();
}
