//! What is looked at when a store is opened.

use std::{
    error::Error as _,
    net::TcpListener,
    time::{Duration, Instant},
};

use idempotent_runtime::store::{
    Acquisition, Store,
    conformance::{Harness as _, key},
    redis::{ConnectError, RedisStore, Weakness},
};

use super::{RedisHarness, installed, on, refused};
use crate::{
    servers::{free_port, redis::Redis},
    toolbox::new_claim,
};

#[track_caller]
fn weaknesses(error: ConnectError) -> Vec<Weakness> {
    match error {
        ConnectError::Weak { weaknesses } => weaknesses,
        other => panic!("{other:?} is another error"),
    }
}

#[tokio::test]
async fn a_server_without_persistence_is_refused_unless_accepted() {
    let Some(redis) = Redis::with(&[]) else {
        return;
    };
    let error = refused(on(&redis)).await;
    assert_eq!(
        error.to_string(),
        "this Redis server can lose keys that it acknowledged: it has no append-only file (set `appendonly yes`); \
         or choose `accept_weaker_durability()`"
    );
    assert_eq!(weaknesses(error), [Weakness::NoAppendOnlyFile]);
    on(&redis)
        .accept_weaker_durability()
        .connect()
        .await
        .unwrap();
}

#[tokio::test]
async fn an_append_only_file_that_is_never_flushed_is_refused() {
    let Some(redis) = Redis::with(&["--appendonly", "yes", "--appendfsync", "no"]) else {
        return;
    };
    assert_eq!(
        weaknesses(refused(on(&redis)).await),
        [Weakness::NeverFlushed]
    );
}

#[tokio::test]
async fn an_append_only_file_that_is_not_flushed_while_it_is_rewritten_is_refused() {
    let settings = ["--appendonly", "yes", "--no-appendfsync-on-rewrite", "yes"];
    let Some(redis) = Redis::with(&settings) else {
        return;
    };
    let error = refused(on(&redis)).await;
    assert!(
        error.to_string().contains("no-appendfsync-on-rewrite no"),
        "{error}"
    );
    assert_eq!(weaknesses(error), [Weakness::NotFlushedInRewrites]);
    redis.ask(&["CONFIG", "SET", "no-appendfsync-on-rewrite", "no"]);
    on(&redis).connect().await.unwrap();
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl", "volatile-random"] {
        let settings = [
            "--appendonly",
            "yes",
            "--maxmemory",
            "100mb",
            "--maxmemory-policy",
            policy,
        ];
        let Some(redis) = Redis::with(&settings) else {
            return;
        };
        let policy = policy.to_owned();
        assert_eq!(
            weaknesses(refused(on(&redis)).await),
            [Weakness::Evicts { policy }]
        );
        // The limit is what makes it evict.
        redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        on(&redis).connect().await.unwrap();
        redis.ask(&["CONFIG", "SET", "maxmemory", "100mb"]);
        redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        on(&redis).connect().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_without_showing_it() {
    let Some(redis) = Redis::with(&["--appendonly", "yes", "--requirepass", "opensesame"]) else {
        return;
    };
    let at = |credentials: &str| format!("redis://{credentials}127.0.0.1:{}", redis.port());
    for credentials in ["", ":wrongword@", "nobody:wrongword@"] {
        let error = refused(RedisStore::builder(at(credentials))).await;
        assert!(
            matches!(error, ConnectError::Authentication { .. }),
            "{error:?}"
        );
        let all = format!("{error} {error:?} {:?}", error.source());
        assert!(!all.contains("wrongword"), "{all}");
    }
    let store = RedisStore::connect(at(":opensesame@")).await.unwrap();
    assert!(store.get(&key(1)).await.unwrap().is_none());
    assert!(
        !format!("{store:?} {:?}", RedisStore::builder(at(":opensesame@"))).contains("opensesame")
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    let started = Instant::now();
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let error = refused(RedisStore::builder(nobody)).await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    let (mut chain, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        chain = format!("{chain}: {cause}");
        next = cause.source();
    }
    assert_eq!(chain.matches("refused").count(), 1, "{chain}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    // Connections are accepted by the system; nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let error = refused(RedisStore::builder(url).connect_timeout(Duration::from_millis(300))).await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_before_anything_is_asked() {
    for url in ["http://localhost", "redis://localhost/x", "localhost"] {
        let error = refused(RedisStore::builder(url)).await;
        assert!(matches!(error, ConnectError::Url { .. }), "{error:?}");
    }
    let error = refused(RedisStore::builder("redis://localhost").prefix("{a}")).await;
    assert!(matches!(error, ConnectError::Prefix { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_permit_to_look_is_refused_unless_accepted() {
    for (forbidden, command) in [("-info", "INFO"), ("-config", "CONFIG GET appendfsync")] {
        let Some(redis) = Redis::start() else {
            return;
        };
        redis.ask(&[
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", forbidden,
        ]);
        let app = || RedisStore::builder(format!("redis://app:pw@127.0.0.1:{}", redis.port()));
        match refused(app()).await {
            ConnectError::Unverified { command: asked, .. } => assert_eq!(asked, command),
            other => panic!("{other:?} is another error"),
        }
        let store = app().accept_weaker_durability().connect().await.unwrap();
        let mine = new_claim(key(1));
        let acquired = store.acquire(&mine).await.unwrap();
        assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
    }
}

#[tokio::test]
async fn a_replica_and_a_node_of_a_cluster_are_refused() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let port = primary.port().to_string();
    let replica = Redis::with(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port]).unwrap();
    assert!(matches!(refused(on(&replica)).await, ConnectError::Replica));
    let bus = free_port().to_string();
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let node = Redis::with(&[&["--appendonly", "yes"], &cluster[..]].concat()).unwrap();
    assert!(matches!(
        refused(on(&node)).await,
        ConnectError::PartOfCluster
    ));
}

#[tokio::test]
async fn a_server_that_is_part_of_no_cluster_is_told_from_one_that_does_not_answer() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let started = Instant::now();
    let url = format!("redis+cluster://127.0.0.1:{}", redis.port());
    let error = refused(RedisStore::builder(url)).await;
    assert!(matches!(error, ConnectError::NotCluster), "{error:?}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "told at once: {took:?}");
}

#[tokio::test]
async fn stores_with_different_prefixes_share_nothing() {
    if !installed() {
        return;
    }
    let (a, b) = (RedisHarness::open().await, RedisHarness::open().await);
    for store in [a.store(), b.store()] {
        let acquired = store.acquire(&new_claim(key(1))).await.unwrap();
        assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
    }
}
