//! Responses that are larger than the server's packets.

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, StoreErrorKind, Write,
    conformance::{key, response},
    sql::mysql::MySqlStore,
};
use sqlx::mysql::MySqlPoolOptions;

use super::MariaDbHarness;
use crate::{
    proxy::Proxy,
    servers::mariadb::MariaDb,
    toolbox::{chain, new_claim},
};

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
    let owner = new_claim(key(1));
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
    let next = new_claim(key(2));
    store.acquire(&next).await.unwrap();
    let fits = Outcome::Response(response(200, &[], &vec![7; (1 << 20) - (2 << 10)]));
    let stored = store.complete(&next.held(), &fits).await;
    assert_eq!(stored.unwrap(), Write::Applied);
    let again = store.acquire(&new_claim(key(2))).await;
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
        let owner = new_claim(key(n));
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

    MariaDbHarness::set(&server, "set global max_allowed_packet = 4194304").await;
    proxy.cut();
    store.get(&key(1)).await.unwrap();
    let taken = complete(5, 2 << 20).await;
    assert_eq!(taken.unwrap(), Write::Applied, "it takes more since");
}
