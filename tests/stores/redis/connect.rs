//! What is checked when a store is opened.

use std::{
    error::Error as _,
    net::TcpListener,
    time::{Duration, Instant},
};

use idempotent_runtime::store::{
    Store, Weakness,
    conformance::{Harness as _, key},
    redis::{ConnectError, RedisStore},
};

use super::{RedisHarness, installed, on, open, refused};
use crate::{
    servers::{free_port, redis::Redis},
    toolbox::{FIRST, chain, new_claim},
};

#[track_caller]
fn weaknesses(error: ConnectError) -> Vec<(Weakness, String)> {
    match error {
        ConnectError::Weak { found } => found
            .into_iter()
            .map(|found| (found.weakness, found.value))
            .collect(),
        other => panic!("{other:?} instead of weaknesses"),
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
        "this Redis store may lose acknowledged writes; `appendonly` is `no`: a kill loses all writes since the last \
         snapshot. Set appendonly yes, or accept it with `accept(Weakness::AppendOnlyOff)`"
    );
    assert_eq!(weaknesses(error), [(Weakness::AppendOnlyOff, "no".into())]);
    let others = Weakness::ALL
        .iter()
        .filter(|weakness| **weakness != Weakness::AppendOnlyOff)
        .fold(on(&redis), |builder, other| builder.accept(*other));
    refused(others.accept_unverified()).await;
    open(on(&redis).accept(Weakness::AppendOnlyOff)).await;
}

#[tokio::test]
async fn an_append_only_file_that_is_never_flushed_is_refused() {
    let Some(redis) = Redis::with(&["--appendonly", "yes", "--appendfsync", "no"]) else {
        return;
    };
    let error = refused(on(&redis)).await;
    assert_eq!(weaknesses(error), [(Weakness::AppendFsyncNo, "no".into())]);
    open(on(&redis).accept(Weakness::AppendFsyncNo)).await;
}

#[tokio::test]
async fn an_append_only_file_that_is_not_flushed_during_a_rewrite_is_refused() {
    let settings = ["--appendonly", "yes", "--no-appendfsync-on-rewrite", "yes"];
    let Some(redis) = Redis::with(&settings) else {
        return;
    };
    let error = refused(on(&redis)).await;
    let text = error.to_string();
    assert!(text.contains("no-appendfsync-on-rewrite no"), "{text}");
    let rewrites = Weakness::NoAppendFsyncOnRewrite;
    assert_eq!(weaknesses(error), [(rewrites, "yes".into())]);
    open(on(&redis).accept(rewrites)).await;
    redis.ask(&["CONFIG", "SET", "no-appendfsync-on-rewrite", "no"]);
    open(on(&redis)).await;
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl", "volatile-random"] {
        let memory = ["--maxmemory", "100mb", "--maxmemory-policy", policy];
        let Some(redis) = Redis::with(&[&["--appendonly", "yes"], &memory[..]].concat()) else {
            return;
        };
        let policy = policy.to_owned();
        let error = refused(on(&redis)).await;
        assert_eq!(weaknesses(error), [(Weakness::Eviction, policy)]);
        open(on(&redis).accept(Weakness::Eviction)).await;
        // Without a limit it does not evict, whatever its policy.
        redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        open(on(&redis)).await;
        redis.ask(&["CONFIG", "SET", "maxmemory", "100mb"]);
        redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        open(on(&redis)).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_reported_and_not_shown() {
    let Some(redis) = Redis::with(&["--appendonly", "yes", "--requirepass", "opensesame"]) else {
        return;
    };
    let url = |credentials: &str| format!("redis://{credentials}127.0.0.1:{}", redis.port());
    for credentials in ["", ":wrongword@", "nobody:wrongword@"] {
        let error = refused(RedisStore::builder(url(credentials))).await;
        assert!(
            matches!(error, ConnectError::Authentication { .. }),
            "{error:?}"
        );
        let text = format!("{error} {error:?} {:?}", error.source());
        assert!(!text.contains("wrongword"), "{text}");
    }
    let right = url(":opensesame@");
    let store = RedisStore::connect(&*right).await.unwrap();
    assert!(store.get(&key(1)).await.unwrap().is_none());
    let text = format!("{store:?} {:?}", RedisStore::builder(right));
    assert!(!text.contains("opensesame"), "{text}");
}

#[tokio::test]
async fn a_server_that_does_not_run_is_reported_at_once() {
    let started = Instant::now();
    let error = refused(super::at(free_port())).await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    let text = chain(&error);
    assert_eq!(text.matches("refused").count(), 1, "{text}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_silent_server_is_reported_after_the_connect_timeout() {
    // The kernel accepts connections; nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let builder = super::at(silent.local_addr().unwrap().port());
    let error = refused(builder.connect_timeout(Duration::from_millis(300))).await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn invalid_settings_are_refused_before_connecting() {
    for url in ["http://localhost", "redis://localhost/x", "localhost"] {
        let error = refused(RedisStore::builder(url)).await;
        assert!(matches!(error, ConnectError::Url { .. }), "{error:?}");
    }
    let error = refused(RedisStore::builder("redis://localhost").prefix("{a}")).await;
    assert!(matches!(error, ConnectError::Prefix { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_forbids_the_durability_check_is_refused_unless_accepted() {
    for (forbidden, command) in [("-info", "INFO"), ("-config", "CONFIG GET appendfsync")] {
        let Some(redis) = Redis::start() else {
            return;
        };
        redis.ask(&[
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", forbidden,
        ]);
        let app = || RedisStore::builder(format!("redis://app:pw@127.0.0.1:{}", redis.port()));
        match refused(app()).await {
            ConnectError::Unverified { command: found, .. } => assert_eq!(found, command),
            other => panic!("{other:?} instead of the command"),
        }
        let all = Weakness::ALL.iter();
        let accepting = all.fold(app(), |builder, weakness| builder.accept(*weakness));
        refused(accepting).await;
        let store = open(app().accept_unverified()).await;
        assert_eq!(store.acquire(&new_claim(key(1))).await.unwrap(), FIRST);
    }
}

#[tokio::test]
async fn a_replica_and_a_node_of_a_cluster_are_refused() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let replica = primary.replica().unwrap();
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
async fn a_cluster_url_of_a_single_server_is_reported_at_once() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let started = Instant::now();
    let url = format!("redis+cluster://127.0.0.1:{}", redis.port());
    let error = refused(RedisStore::builder(url)).await;
    assert!(matches!(error, ConnectError::NotCluster), "{error:?}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn stores_with_different_prefixes_share_nothing() {
    if !installed() {
        return;
    }
    for harness in [RedisHarness::open().await, RedisHarness::open().await] {
        let acquired = harness.store().acquire(&new_claim(key(1))).await;
        assert_eq!(acquired.unwrap(), FIRST);
    }
}
