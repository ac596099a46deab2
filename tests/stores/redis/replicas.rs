//! Writes that are confirmed by replicas.

use std::{error::Error as _, time::Duration};

use idempotent_runtime::store::{
    Acquisition, Store, StoreErrorKind, Write, conformance::key, redis::ConnectError,
};
use tokio::task::block_in_place;

use super::{RedisHarness, at, hex, installed, on, open, refused};
use crate::{
    proxy::Proxy,
    servers::redis::Redis,
    toolbox::{FIRST, acquire_all, answered, done, new_claim},
};

/// A failover loses no confirmed write. With too few replicas a write is an error, and its claim is not lost.
#[tokio::test]
async fn writes_are_confirmed_by_replicas() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let store = open(on(&primary).wait_replicas(1, Duration::from_millis(200))).await;
    let [mine, next] = [(); 2].map(|()| new_claim(key(1)));

    let error = store.acquire(&mine).await.expect_err("there is no replica");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(
        error.source().unwrap().to_string(),
        "0 of 1 replicas confirmed the write in time"
    );

    let replica = primary.replica().unwrap();
    // The repetition renews the same lease, and is confirmed.
    assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
    let (held, outcome) = (mine.held(), done());
    let completed = answered(|| store.complete(&held, &outcome)).await;
    assert_eq!(completed, Write::Applied);
    let record = format!("idempotent:{}", hex(&key(1)));
    assert_eq!(replica.ask(&["EXISTS", &record]), ":1\r\n");
    let again = answered(|| store.acquire(&next)).await;
    assert_eq!(again, Acquisition::Completed(done()));
}

#[tokio::test]
async fn confirmation_without_replicas_or_time_is_refused() {
    if !installed() {
        return;
    }
    for (replicas, timeout) in [(0, Duration::from_secs(1)), (1, Duration::ZERO)] {
        let builder = on(RedisHarness::server()).wait_replicas(replicas, timeout);
        assert!(matches!(refused(builder).await, ConnectError::Wait { .. }));
    }
}

/// Connections to a primary that became a replica are useless. The store must not fail one operation for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_operations_follow_a_failover_at_once() {
    let Some(first) = Redis::start() else { return };
    let second = block_in_place(|| first.replica()).unwrap();
    let proxy = Proxy::to(first.port());
    let store = open(at(proxy.port()).wait_replicas(1, Duration::from_secs(5))).await;
    // At once, so that there are many connections.
    for answer in acquire_all(&store, (0..16).map(key)).await {
        answer.expect("confirmed");
    }

    assert_eq!(second.ask(&["REPLICAOF", "NO", "ONE"]), "+OK\r\n");
    let port = second.port().to_string();
    assert_eq!(first.ask(&["REPLICAOF", "127.0.0.1", &port]), "+OK\r\n");
    proxy.move_to(second.port());
    block_in_place(|| first.wait_for_sync());
    for n in 16..20 {
        assert_eq!(store.acquire(&new_claim(key(n))).await.unwrap(), FIRST);
    }
}
