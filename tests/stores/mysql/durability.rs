//! Servers that may lose acknowledged writes, or take none.

use idempotent_runtime::store::{
    Outcome, Store, StoreErrorKind, Weakness, Write,
    conformance::key,
    sql::{
        ConnectError,
        mysql::{MySqlStore, MySqlStoreBuilder},
    },
};
use sqlx::{Executor as _, mysql::MySqlPoolOptions};

use super::{make_user, new_table, run, user_url};
use crate::{
    observe::Log,
    proxy::Proxy,
    servers::mariadb::MariaDb,
    toolbox::{FIRST, chain, new_claim},
};

#[tokio::test]
async fn a_server_that_is_not_durable_has_small_packets_or_is_read_only_is_refused() {
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
    let refused = async |builder: MySqlStoreBuilder| {
        let opened = builder.connect(&server.url()).await;
        opened.expect_err("must not connect")
    };
    let text = refused(builder()).await.to_string();
    assert!(text.contains("innodb_flush_log_at_trx_commit"), "{text}");
    let builder = || builder().accept(Weakness::InnodbFlushLogAtTrxCommit);
    let accepted = builder().connect(&server.url()).await;
    accepted.expect("it is accepted");
    let error = refused(builder().largest_response(1 << 20)).await;
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

    run(&server, "set global read_only = 1").await;
    let text = refused(builder()).await.to_string();
    assert!(text.contains("read-only"), "{text}");
}

/// With a binary log a commit is as durable as that log.
#[tokio::test]
async fn a_binary_log_that_is_not_flushed_is_refused() {
    let Some(server) = MariaDb::with(&["--log-bin", "--sync-binlog=0", "--server-id=1"]) else {
        return;
    };
    let builder = || MySqlStore::builder().migrate(true);
    let error = builder().connect(&server.url()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Weak { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("`sync_binlog` is `0`"), "{error}");
    assert!(text.contains("`accept(Weakness::SyncBinlog)`"), "{error}");
    let others = builder().accept(Weakness::NoBinaryLog);
    let others = others.connect(&server.url()).await;
    others.expect_err("another weakness is accepted");
    let weak = builder().accept(Weakness::SyncBinlog);
    let accepted = weak.connect(&server.url()).await;
    accepted.expect("it is accepted");
    run(&server, "set global sync_binlog = 1").await;
    let flushed = builder().connect(&server.url()).await;
    flushed.expect("the log is flushed with each commit");
}

/// Without it a crash may take back a commit that other sessions have read.
#[tokio::test]
async fn a_missing_binary_log_is_logged_as_a_warning() {
    let (Some(without), Some(with)) = (MariaDb::shared(), MariaDb::flushing()) else {
        return;
    };
    let warnings = async |server: &MariaDb, weak: bool| {
        let (log, _collected) = Log::collect();
        let builder = MySqlStore::builder().table(new_table()).migrate(true);
        let builder = if weak {
            builder.accept(Weakness::NoBinaryLog)
        } else {
            builder
        };
        builder.connect(&server.url()).await.unwrap();
        let text = log.text();
        let warnings = text.lines().filter(|line| line.contains("WARN"));
        warnings.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let found = warnings(without, false).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("no binary log"), "{found:?}");
    assert_eq!(warnings(without, true).await, [""; 0]);
    assert_eq!(warnings(&with, false).await, [""; 0]);
}

/// Under `read committed` a server with such a binary log refuses all writes.
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
    // The pool's sessions read repeatably, which such a log permits.
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    let error = MySqlStore::connect(&server.url()).await.unwrap_err();
    assert!(error.to_string().contains("binlog_format"), "{error}");
    let isolation = "set session transaction isolation level read committed";
    pool.execute(isolation).await.unwrap();
    let error = store.acquire(&new_claim(key(1))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);

    run(&server, "set global binlog_format = MIXED").await;
    let store = MySqlStore::connect(&server.url()).await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();
}

/// The address leads to another server, as during a failover: it is read-only, and the store keeps no connection to it.
#[tokio::test]
async fn connections_to_a_server_that_became_read_only_are_replaced() {
    let (Some(primary), Some(replica)) = (MariaDb::start(), MariaDb::start()) else {
        return;
    };
    for server in [&primary, &replica] {
        // The root user has SUPER and may write to a read-only server.
        make_user(server).await;
        let builder = MySqlStore::builder().migrate(true);
        let made = builder.connect(&user_url(server.port())).await;
        made.expect("a table").close().await;
    }
    run(&replica, "set global read_only = 1").await;
    let proxy = Proxy::to(primary.port());
    let builder = MySqlStore::builder().connections(2);
    let store = builder.connect(&user_url(proxy.port())).await;
    let store = store.expect("the primary");
    let [mine, other] = [1, 2].map(|n| new_claim(key(n)));
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);

    proxy.move_to(replica.port());
    proxy.cut();
    // The first acquire meets the connection that was cut, and is not repeated by the store.
    let error = store.acquire(&other).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let error = store.acquire(&other).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let text = chain(&error);
    assert!(text.contains("read-only"), "{text}");
    let error = store.complete(&mine.held(), &Outcome::Tombstone).await;
    assert_eq!(error.unwrap_err().kind(), StoreErrorKind::Unavailable);

    // Not cut: the store itself has closed the connections to the replica.
    proxy.move_to(primary.port());
    let completed = store.complete(&mine.held(), &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
    assert_eq!(store.acquire(&other).await.unwrap(), FIRST);
}

#[tokio::test]
async fn the_stores_own_sessions_write_where_sessions_are_read_only_by_default() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    run(&server, "set global tx_read_only = 1").await;
    let builder = MySqlStore::builder().migrate(true);
    let store = builder.connect(&server.url()).await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();
}

#[tokio::test]
async fn a_server_whose_pages_a_crash_may_destroy_is_refused() {
    let Some(server) = MariaDb::with(&["--skip-innodb-doublewrite"]) else {
        return;
    };
    let builder = || MySqlStore::builder().migrate(true);
    let error = builder().connect(&server.url()).await.unwrap_err();
    assert!(error.to_string().contains("innodb_doublewrite"), "{error}");
    let url = server.url();
    let other = builder().accept(Weakness::FullPageWritesOff).connect(&url);
    other.await.expect_err("another weakness is accepted");
    let accepted = builder()
        .accept(Weakness::InnodbDoublewriteOff)
        .connect(&url);
    accepted.await.expect("it is accepted");
}
