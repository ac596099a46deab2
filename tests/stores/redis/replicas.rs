//! Writes that replicas confirm.

use std::{error::Error as _, time::Duration};

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, StoreErrorKind, Write,
    conformance::{key, response},
    redis::{ConnectError, RedisStore},
};

use super::{RedisHarness, installed, on, refused};
use crate::{
    proxy::Proxy,
    servers::redis::Redis,
    toolbox::{answered, new_claim},
};

/// Replicas that confirm are what a failover loses nothing to; too few are an error, and no lost claim.
#[tokio::test]
async fn writes_are_confirmed_by_replicas() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let port = primary.port().to_string();
    let confirmed = on(&primary).wait_replicas(1, Duration::from_millis(200));
    let store = confirmed.connect().await.unwrap();
    let mine = new_claim(key(1));

    let error = store.acquire(&mine).await.expect_err("there is no replica");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(
        error.source().unwrap().to_string(),
        "0 of 1 replicas confirmed the write in time"
    );

    let replica = Redis::with(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port]).unwrap();
    crate::servers::until("the replica", || {
        let info = replica.ask(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    // The repetition is the same lease, confirmed this time.
    let acquired = answered(|| store.acquire(&mine)).await;
    assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
    let outcome = Outcome::Response(response(200, &[], b"done"));
    let held = mine.held();
    let completed = answered(|| store.complete(&held, &outcome)).await;
    assert_eq!(completed, Write::Applied);
    assert_eq!(
        replica.ask(&["EXISTS", &format!("idempotent:{}", "01".repeat(32))]),
        ":1\r\n"
    );
    let next = new_claim(key(1));
    let again = answered(|| store.acquire(&next)).await;
    assert_eq!(again, Acquisition::Completed(outcome));
}

#[tokio::test]
async fn confirmation_that_cannot_be_had_is_refused() {
    if !installed() {
        return;
    }
    for (replicas, timeout) in [(0, Duration::from_secs(1)), (1, Duration::ZERO)] {
        let builder =
            RedisStore::builder(RedisHarness::server().url()).wait_replicas(replicas, timeout);
        assert!(matches!(refused(builder).await, ConnectError::Wait { .. }));
    }
}

/// Connections to a primary that became a replica are of no use; each of them must not cost a verb.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_verbs_follow_a_failover_at_once() {
    let Some(first) = Redis::start() else { return };
    let replica_of = |port: u16| {
        [
            "REPLICAOF".to_owned(),
            "127.0.0.1".to_owned(),
            port.to_string(),
        ]
    };
    let command = |redis: &Redis, words: &[String]| {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        assert_eq!(redis.ask(&words), "+OK\r\n");
    };
    let online = |redis: &Redis| {
        tokio::task::block_in_place(|| {
            crate::servers::until("the replica", || {
                let info = redis.ask(&["INFO", "replication"]);
                info.contains("master_link_status:up").then_some(())
            });
        });
    };
    let second = Redis::start().unwrap();
    command(&second, &replica_of(first.port()));
    online(&second);
    let proxy = Proxy::to(first.port());
    let builder = RedisStore::builder(format!("redis://127.0.0.1:{}", proxy.port()));
    let builder = builder.wait_replicas(1, Duration::from_secs(5));
    let store = builder.connect().await.unwrap();
    // Many at once, so that there are many connections.
    let mut verbs = tokio::task::JoinSet::new();
    for n in 0..16 {
        let store = store.clone();
        verbs.spawn(async move { store.acquire(&new_claim(key(n))).await });
    }
    for answer in verbs.join_all().await {
        answer.expect("confirmed");
    }

    assert_eq!(second.ask(&["REPLICAOF", "NO", "ONE"]), "+OK\r\n");
    command(&first, &replica_of(second.port()));
    proxy.move_to(second.port());
    online(&first);
    for n in 16..20 {
        let answer = store.acquire(&new_claim(key(n))).await;
        assert_eq!(answer.unwrap(), Acquisition::Acquired { attempt: 1 });
    }
}
