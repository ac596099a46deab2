//! Servers that are replaced by others, or become weaker, while a store is open.

use std::{future::Future, time::Duration};

use idempotent_runtime::store::{
    Store as _, StoreErrorKind, Write, conformance::key, sql::TableName,
};

use crate::{
    observe::Log,
    proxy::Proxy,
    sql::server::{OpenOptions, ServerKind, with_store},
    toolbox::{FIRST, answered, chain, new_claim},
};

/// On the test's own thread, whose log is collected, with the store's attempts to connect.
fn on_one_thread(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(case);
}

macro_rules! on_each_server {
    ($($case:ident,)*) => {
        mod postgres {
            $(#[test] fn $case() {
                super::on_one_thread(super::$case(crate::sql::server::ServerKind::Postgres));
            })*
        }
        mod mysql {
            $(#[test] fn $case() {
                super::on_one_thread(super::$case(crate::sql::server::ServerKind::MariaDb));
            })*
        }
    };
}

on_each_server! {
    another_server_behind_the_same_address_is_reported,
    a_server_that_becomes_weaker_is_not_used,
    an_applications_pool_notices_another_server_after_it_lost_a_connection,
}

/// The lines of the log about servers, each with its level and the change.
fn reports(log: &Log) -> Vec<&'static str> {
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("replaced"));
    lines
        .map(|line| match line {
            line if line.contains(" ERROR ") && line.contains("database is empty") => "empty",
            line if line.contains(" ERROR ") && line.contains("weaker") => "weaker",
            line if line.contains(" WARN ") => "replaced",
            line => panic!("{line}"),
        })
        .collect()
}

/// The statement that makes the server weak, the one that mends it, and the weakness.
fn weaken(kind: ServerKind) -> [&'static str; 3] {
    match kind {
        ServerKind::Postgres => [
            "alter system set fsync = off",
            "alter system set fsync = on",
            "FsyncOff",
        ],
        ServerKind::MariaDb => [
            "set global innodb_flush_log_at_trx_commit = 2",
            "set global innodb_flush_log_at_trx_commit = 1",
            "InnodbFlushLogAtTrxCommit",
        ],
    }
}

/// Changes a setting, and waits until new sessions have it.
async fn set(kind: ServerKind, url: &str, statement: &str) {
    kind.run(url, statement).await;
    if kind.is_postgres() {
        kind.run(url, "select pg_reload_conf()").await;
        let expected = i64::from(statement.ends_with("on"));
        let query = "select (current_setting('fsync') = 'on')::int::bigint";
        while kind.count(url, query).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn another_server_behind_the_same_address_is_reported(kind: ServerKind) {
    let known = key(1);
    let (Some(mut first), Some(copy), Some(empty)) = (kind.start(), kind.start(), kind.start())
    else {
        return;
    };
    // The same table, as on a replica or in a backup.
    let made = "update idempotency_records_versions set applied_at = '2026-01-02 03:04:05.678901'";
    for server in [&first, &copy] {
        server.store(server.port(), 1).await;
        kind.run(&kind.url_of(server.port()), made).await;
    }
    let proxy = Proxy::to(first.port());
    let store = first.store(proxy.port(), 2).await;
    assert_eq!(store.acquire(&new_claim(key(1))).await.unwrap(), FIRST);
    let (log, _guard) = Log::collect();
    for _ in 0..2 {
        proxy.cut();
        assert!(answered(|| store.get(&known)).await.is_some());
    }
    first.restart();
    assert!(answered(|| store.get(&known)).await.is_some());
    assert_eq!(reports(&log), [""; 0], "the same server");

    proxy.move_to(copy.port());
    for _ in 0..2 {
        proxy.cut();
        assert!(answered(|| store.get(&known)).await.is_none());
    }
    assert_eq!(reports(&log), ["replaced"], "once");

    // It has no table at all.
    proxy.move_to(empty.port());
    proxy.cut();
    let error = store.acquire(&new_claim(key(2))).await.unwrap_err();
    // A connection that was cut, at first.
    let error = match store.acquire(&new_claim(key(2))).await {
        Err(next) => next,
        Ok(acquired) => panic!("{acquired:?} after {error:?}"),
    };
    assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}");
    assert_eq!(reports(&log), ["replaced", "empty"]);
    // It has an empty one.
    empty.store(empty.port(), 1).await;
    proxy.cut();
    assert!(answered(|| store.get(&known)).await.is_none());
    assert_eq!(reports(&log), ["replaced", "empty", "empty"]);
}

async fn a_server_that_becomes_weaker_is_not_used(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let url = kind.url_of(server.port());
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 2).await;
    let mine = new_claim(key(1));
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    let (log, _guard) = Log::collect();
    let [weak, mended, weakness] = weaken(kind);
    set(kind, &url, weak).await;
    // Open connections are not asked.
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    proxy.cut();
    for _ in 0..2 {
        let error = store.renew(&mine.held()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        let text = chain(&error);
        assert!(
            text.contains(&format!("accept(Weakness::{weakness})")),
            "{text}"
        );
    }
    assert_eq!(reports(&log), ["weaker"], "once");
    set(kind, &url, mended).await;
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
}

async fn an_applications_pool_notices_another_server_after_it_lost_a_connection(kind: ServerKind) {
    let known = key(1);
    let (Some(first), Some(other)) = (kind.start(), kind.start()) else {
        return;
    };
    for server in [&first, &other] {
        server.store(server.port(), 1).await;
    }
    let proxy = Proxy::to(first.port());
    let url = kind.url_of(proxy.port());
    with_store!(kind, SqlStore, PoolOptions => {
        let pool = PoolOptions::new().max_connections(1).test_before_acquire(false);
        let pool = pool.connect(&url).await.expect("a pool");
        let store = SqlStore::builder().from_pool(pool.clone());
        store.check().await.expect("a table");
        // The pool tests a connection that is released, and would replace one that was cut meanwhile.
        let cut = async || {
            while pool.num_idle() == 0 {
                tokio::task::yield_now().await;
            }
            proxy.cut();
        };
        let (log, _guard) = Log::collect();
        assert_eq!(store.acquire(&new_claim(known)).await.unwrap(), FIRST);
        proxy.move_to(other.port());
        cut().await;
        assert!(answered(|| store.get(&known)).await.is_none());
        assert_eq!(reports(&log), ["empty"]);
        let [weak, mended, weakness] = weaken(kind);
        let admin = kind.url_of(other.port());
        set(kind, &admin, weak).await;
        cut().await;
        for _ in 0..2 {
            let error = store.get(&known).await.unwrap_err();
            assert!(chain(&error).contains(weakness), "{error:?}");
        }
        set(kind, &admin, mended).await;
        assert!(store.get(&known).await.unwrap().is_none());
    });
}

/// Its sessions were made on another runtime, which goes on; the caller's has ended.
#[test]
fn sessions_outlive_the_runtime_of_the_operation_that_needed_them() {
    let known = key(1);
    let Some(url) = ServerKind::Postgres.shared() else {
        return;
    };
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let port = url
        .split(['@', ':', '/'])
        .find_map(|part| part.parse().ok());
    let proxy = Proxy::to(port.expect("a port"));
    let table: TableName = super::new_table();
    let (home, guest, last) = (runtime(), runtime(), runtime());
    let through = ServerKind::Postgres.url_of(proxy.port());
    let open = ServerKind::Postgres.open(&through, &table, OpenOptions::MIGRATE);
    let store = home.block_on(open).expect("a store");
    proxy.cut();
    // Makes a session.
    guest.block_on(answered(|| store.get(&known)));
    let made = proxy.accepted();
    drop(guest);
    assert!(last.block_on(store.get(&key(1))).unwrap().is_none());
    assert_eq!(proxy.accepted(), made, "the same session");
    // Without the runtime of the store, the caller's makes the next one.
    drop(home);
    last.block_on(answered(|| store.get(&known)));
}
