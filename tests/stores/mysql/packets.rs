//! Responses that are larger than the server's packets.

use idempotent_runtime::store::{
    Outcome, Store, StoreErrorKind, Write, conformance::key, sql::mysql::MySqlStore,
};
use sqlx::mysql::MySqlPoolOptions;

use super::run;
use crate::{
    proxy::Proxy,
    servers::mariadb::MariaDb,
    toolbox::{chain, execute, large, new_claim, replays},
};

/// The server would answer it by closing the connection. A tombstone is stored instead.
#[tokio::test]
async fn a_response_larger_than_the_servers_packets_is_refused() {
    let Some(server) = MariaDb::with(&["--max-allowed-packet=1048576"]) else {
        return;
    };
    let builder = MySqlStore::builder()
        .migrate(true)
        .largest_response(500_000);
    let store = builder.connect(&server.url()).await.unwrap();
    let mine = new_claim(key(1));
    store.acquire(&mine).await.unwrap();
    let completed = store.complete(&mine.held(), &large(2 << 20)).await;
    let error = completed.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    let text = chain(&error);
    assert!(text.contains("max_allowed_packet is 1048576"), "{text}");
    let tombstone = store.complete(&mine.held(), &Outcome::Tombstone).await;
    assert_eq!(tombstone.unwrap(), Write::Applied);

    // The largest that fits, to two kilobytes.
    let fits = large((1 << 20) - (2 << 10));
    execute(&store, &new_claim(key(2)), &fits).await;
    replays(&store, key(2), &fits).await;
}

/// The store of an application's pool is not opened, so it asks for the limit later: once, before the first response that
/// may exceed it.
#[tokio::test]
async fn the_packet_limit_is_read_before_the_first_large_response() {
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
    let reads = || server.general_log().matches("max_allowed_packet").count();
    let complete = async |n, bytes| {
        let mine = new_claim(key(n));
        store.acquire(&mine).await.unwrap();
        store.complete(&mine.held(), &large(bytes)).await
    };
    // The driver reads the limit on each new connection.
    store.get(&key(1)).await.unwrap();
    let (before, connections) = (reads(), proxy.accepted());
    assert_eq!(complete(1, 60 << 10).await.unwrap(), Write::Applied);
    assert_eq!(reads(), before, "a small response");
    assert_eq!(complete(2, 100 << 10).await.unwrap(), Write::Applied);
    // Two lines in the log: prepared and executed.
    let after = reads();
    assert!(after > before, "the first large response");
    assert_eq!(complete(3, 500 << 10).await.unwrap(), Write::Applied);
    assert_eq!(reads(), after, "the limit is known");
    let error = complete(4, 2 << 20).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert_eq!(proxy.accepted(), connections, "no connection was closed");

    run(&server, "set global max_allowed_packet = 4194304").await;
    proxy.cut();
    store.get(&key(1)).await.unwrap();
    let completed = complete(5, 2 << 20).await;
    assert_eq!(completed.unwrap(), Write::Applied, "the limit was raised");
}
