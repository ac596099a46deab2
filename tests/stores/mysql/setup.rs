//! What is wrong before the first verb, and what the first ones cost.

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, StoreErrorKind, Write,
    conformance::{claim, key, response},
    sql::{ConnectError, TableName, mysql::MySqlStore},
};
use sqlx::{Executor as _, mysql::MySqlPoolOptions};

use super::{OnMariaDb, new_table};
use crate::{
    observe::Log,
    proxy::Proxy,
    servers::{free_port, mariadb::MariaDb},
    toolbox::chain,
};

async fn refusal(url: &str) -> ConnectError {
    MySqlStore::connect(url)
        .await
        .expect_err("must not connect")
}

#[tokio::test]
async fn wrong_urls_are_refused_without_showing_the_password() {
    for url in [
        "",
        "mysql",
        "postgres://u:hunter2@localhost/x",
        "mysql://u:hunter2@[::1/x",
        "mysql://u:hunter2@localhost",
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
    let error = refusal(&format!("mariadb://root@127.0.0.1:{}/mysql", free_port())).await;
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
async fn a_wrong_password_or_database_is_refused() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let user = "create or replace user secretive@'127.0.0.1' identified by 'right'";
    OnMariaDb::behind().await.execute(user).await.unwrap();
    let port = server.port();
    for url in [
        format!("mysql://secretive:wrong@127.0.0.1:{port}/mysql"),
        format!("mysql://secretive:right@127.0.0.1:{port}/mysql"),
        format!("mysql://root@127.0.0.1:{port}/nothing"),
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
async fn a_table_may_be_in_another_database_and_have_any_name() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    OnMariaDb::behind()
        .await
        .execute("create database if not exists billing")
        .await
        .unwrap();
    let table: TableName = "billing.order".parse().unwrap();
    let store = MySqlStore::builder()
        .table(table)
        .migrate(true)
        .connect(&server.url())
        .await
        .unwrap();
    let owner = claim::<OnMariaDb>(key(1));
    assert_eq!(
        store.acquire(&owner).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
    store.purge_expired(10).await.unwrap();
    let count = "select count(*) from billing.`order`";
    let records: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut OnMariaDb::behind().await)
        .await
        .unwrap();
    assert_eq!(records, 1);
}

#[tokio::test]
async fn the_applications_own_pool_is_used_and_looked_at() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let pool = MySqlPoolOptions::new()
        .max_connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    let store = MySqlStore::builder()
        .table(new_table())
        .from_pool(pool.clone());
    assert!(matches!(
        store.check().await,
        Err(ConnectError::MissingTable { .. })
    ));
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    store.acquire(&claim::<OnMariaDb>(key(1))).await.unwrap();

    pool.execute("set autocommit = 0").await.unwrap();
    let error = store.check().await.unwrap_err();
    assert!(error.to_string().contains("autocommit"), "{error}");
}

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

    OnMariaDb::set(&server, "set global read_only = 1").await;
    let error = builder().connect(&server.url()).await.unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}

/// Counted by the server, which logs everything it is asked to do.
#[tokio::test]
async fn a_first_execution_costs_two_round_trips_and_a_replay_one() {
    let Some(server) = MariaDb::with(&["--general-log=1", "--general-log-file=general"]) else {
        return;
    };
    let store = MySqlStore::builder()
        .migrate(true)
        .connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    let mark = async || OnMariaDb::set(&server, "select 'mark'").await;
    let ran = || {
        let log = server.general_log();
        let (_, since) = log.rsplit_once("select 'mark'").expect("the mark");
        let asked = |line: &&str| {
            ["Query\t", "Execute\t", "Ping"]
                .iter()
                .any(|command| line.contains(command))
        };
        since
            .lines()
            .filter(asked)
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    let answer = Outcome::Response(response(201, &[], b"done"));
    for n in 1..=2 {
        let owner = claim::<OnMariaDb>(key(n));
        mark().await;
        assert_eq!(
            store.acquire(&owner).await.unwrap(),
            Acquisition::Acquired { attempt: 1 }
        );
        assert_eq!(
            store.complete(&owner.held(), &answer).await.unwrap(),
            Write::Applied
        );
        let asked = ran();
        assert_eq!(asked.len(), 2, "{asked:#?}");
        assert!(
            asked[0].contains("insert ignore") && asked[1].contains("Execute"),
            "{asked:#?}"
        );

        mark().await;
        let again = store.acquire(&claim::<OnMariaDb>(key(n))).await.unwrap();
        assert_eq!(again, Acquisition::Completed(answer.clone()));
        let asked = ran();
        assert_eq!(asked.len(), 1, "{asked:#?}");
        assert!(asked[0].contains("insert ignore"), "{asked:#?}");
    }
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
    OnMariaDb::set(&server, "set global sync_binlog = 1").await;
    builder()
        .connect(&server.url())
        .await
        .expect("flushed with each commit");
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
            OnMariaDb::set(server, statement).await;
        }
        let url = format!("mysql://app:pw@127.0.0.1:{}/shop", server.port());
        let made = MySqlStore::builder().migrate(true).connect(&url).await;
        made.expect("a table").close().await;
    }
    OnMariaDb::set(&replica, "set global read_only = 1").await;
    let proxy = Proxy::to(primary.port());
    let url = format!("mysql://app:pw@127.0.0.1:{}/shop", proxy.port());
    let store = MySqlStore::builder().connections(2).connect(&url).await;
    let store = store.expect("the primary");
    let owner = claim::<OnMariaDb>(key(1));
    let first = Acquisition::Acquired { attempt: 1 };
    assert_eq!(store.acquire(&owner).await.unwrap(), first);

    proxy.move_to(replica.port());
    proxy.cut();
    let other = claim::<OnMariaDb>(key(2));
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

/// A response that the server would answer by closing the connection is refused, and a tombstone is not.
#[tokio::test]
async fn a_response_larger_than_the_servers_packets_is_refused() {
    let Some(server) = MariaDb::with(&["--max-allowed-packet=1048576"]) else {
        return;
    };
    let builder = MySqlStore::builder()
        .migrate(true)
        .largest_response(500_000);
    let store = builder.connect(&server.url()).await.unwrap();
    let owner = claim::<OnMariaDb>(key(1));
    store.acquire(&owner).await.unwrap();
    let large = Outcome::Response(response(200, &[], &vec![7; 2 << 20]));
    let error = store.complete(&owner.held(), &large).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert!(
        chain(&error).contains("max_allowed_packet is 1048576"),
        "{}",
        chain(&error)
    );
    let tombstone = store.complete(&owner.held(), &Outcome::Tombstone).await;
    assert_eq!(tombstone.unwrap(), Write::Applied);

    // The largest that fits, to the kilobyte.
    let next = claim::<OnMariaDb>(key(2));
    store.acquire(&next).await.unwrap();
    let fits = Outcome::Response(response(200, &[], &vec![7; (1 << 20) - (2 << 10)]));
    let stored = store.complete(&next.held(), &fits).await;
    assert_eq!(stored.unwrap(), Write::Applied);
    let again = store.acquire(&claim::<OnMariaDb>(key(2))).await;
    assert_eq!(again.unwrap(), Acquisition::Completed(fits));
}

/// An application's pool whose server nobody asked. It is asked once, before the first response that it may not take.
#[tokio::test]
async fn a_server_that_was_never_asked_is_before_a_large_response() {
    let settings = [
        "--max-allowed-packet=1048576",
        "--general-log=1",
        "--general-log-file=general",
    ];
    let Some(server) = MariaDb::with(&settings) else {
        return;
    };
    let proxy = Proxy::to(server.port());
    let pool = MySqlPoolOptions::new().max_connections(1);
    let pool = pool.connect(&MariaDb::url_of(proxy.port())).await.unwrap();
    let store = MySqlStore::builder().from_pool(pool);
    store.migrate().await.unwrap();
    let asked = || server.general_log().matches("max_allowed_packet").count();
    let complete = async |n, bytes| {
        let owner = claim::<OnMariaDb>(key(n));
        store.acquire(&owner).await.unwrap();
        let outcome = Outcome::Response(response(200, &[], &vec![7; bytes]));
        store.complete(&owner.held(), &outcome).await
    };
    // Each connection is asked by the driver.
    store.get(&key(1)).await.unwrap();
    let (before, connections) = (asked(), proxy.accepted());
    assert_eq!(complete(1, 60 << 10).await.unwrap(), Write::Applied);
    assert_eq!(asked(), before, "most responses are smaller");
    assert_eq!(complete(2, 100 << 10).await.unwrap(), Write::Applied);
    // Prepared and executed.
    let after = asked();
    assert!(after > before, "it was asked");
    assert_eq!(complete(3, 500 << 10).await.unwrap(), Write::Applied);
    assert_eq!(asked(), after, "it has answered before");
    let error = complete(4, 2 << 20).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert_eq!(proxy.accepted(), connections, "no connection was broken");

    OnMariaDb::set(&server, "set global max_allowed_packet = 4194304").await;
    proxy.cut();
    store.get(&key(1)).await.unwrap();
    let taken = complete(5, 2 << 20).await;
    assert_eq!(taken.unwrap(), Write::Applied, "it takes more since");
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
    let error = store
        .acquire(&claim::<OnMariaDb>(key(1)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);

    OnMariaDb::set(&server, "set global binlog_format = MIXED").await;
    let store = MySqlStore::connect(&server.url()).await.unwrap();
    store.acquire(&claim::<OnMariaDb>(key(1))).await.unwrap();
}

#[tokio::test]
async fn sessions_of_the_stores_own_write_where_others_read_by_default() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    OnMariaDb::set(&server, "set global tx_read_only = 1").await;
    let builder = MySqlStore::builder().migrate(true);
    let store = builder.connect(&server.url()).await.unwrap();
    store.acquire(&claim::<OnMariaDb>(key(1))).await.unwrap();
}
