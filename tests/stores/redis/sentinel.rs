//! A primary that dies, a sentinel that names the next one, and a store that goes there.

use std::{
    fs,
    time::{Duration, Instant},
};

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, Write,
    conformance::{key, response},
    redis::{ConnectError, RedisStore},
};

use super::permissions::{documented_besides, documented_rule};
use crate::{
    servers::{Folder, Process, free_port, redis::Redis, server, until},
    toolbox::{answered, new_claim, within},
};

struct Sentinel {
    port: u16,
    _process: Process,
    _folder: Folder,
}

impl Sentinel {
    /// Watches this primary under the name `main`.
    fn of(primary: &Redis) -> Option<Self> {
        let program = server("redis-server")?;
        let (folder, port) = (Folder::new("sentinel"), free_port());
        let settings = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
            primary.port()
        );
        fs::write(&settings, text).expect("a settings file");
        let arguments = [settings.as_os_str(), "--sentinel".as_ref()];
        let process = Process::start(&program, arguments, folder.path());
        until("the sentinel", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(Self {
            port,
            _process: process,
            _folder: folder,
        })
    }

    fn url(&self, primary: &str) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{primary}", self.port)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    let Some(mut primary) = Redis::start() else {
        return;
    };
    let port = primary.port().to_string();
    let replica = Redis::with(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port]).unwrap();
    let sentinel = Sentinel::of(&primary).unwrap();
    let sees_replica = || {
        let info = primary.ask(&["INFO", "replication"]);
        info.contains("state=online").then_some(())
    };
    tokio::task::block_in_place(|| until("the replica", sees_replica));
    // Confirmed, so that the failover loses nothing.
    let builder = RedisStore::builder(sentinel.url("main"));
    let store = builder
        .wait_replicas(1, Duration::from_millis(500))
        .connect()
        .await
        .unwrap();
    let reader = RedisStore::connect(sentinel.url("main")).await.unwrap();
    let outcome = Outcome::Response(response(200, &[], b"done"));
    for n in 0..50 {
        let mine = new_claim(key(n));
        let acquired = answered(|| store.acquire(&mine)).await;
        assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
        let held = mine.held();
        let completed = answered(|| store.complete(&held, &outcome)).await;
        assert_eq!(completed, Write::Applied);
    }
    let knows_replica = || {
        let known = sentinel_knows(&sentinel);
        known.contains(&replica.port().to_string()).then_some(())
    };
    tokio::task::block_in_place(|| until("the sentinel to find the replica", knows_replica));

    let killed = Instant::now();
    primary.kill();
    for n in 0..50 {
        let next = new_claim(key(n));
        let again = answered(|| reader.acquire(&next)).await;
        assert_eq!(again, Acquisition::Completed(outcome.clone()), "key {n}");
    }
    println!(
        "50 confirmed outcomes replayed {:?} after the primary was killed",
        killed.elapsed()
    );
}

fn sentinel_knows(sentinel: &Sentinel) -> String {
    crate::servers::redis::ask_inline(sentinel.port, "SENTINEL replicas main")
}

#[tokio::test]
async fn a_name_that_the_sentinel_does_not_know_is_told() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let sentinel = Sentinel::of(&primary).unwrap();
    // What one says is not hidden by another that says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let url = sentinel
        .url("other")
        .replacen("127", &format!("{silent},127"), 1);
    for url in [sentinel.url("other"), url] {
        let error = RedisStore::connect(url).await.expect_err("no such primary");
        match error {
            ConnectError::Unreachable { source } => {
                assert!(source.to_string().contains("not found"), "{source}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What asks the primary for its role does so with the rights of the service.
#[tokio::test]
async fn the_documented_permissions_are_enough_by_sentinels() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let sentinel = Sentinel::of(&primary).unwrap();
    let mut rule = documented_rule();
    let besides = documented_besides("sentinels");
    rule.extend(besides.iter().map(String::as_str));
    assert_eq!(primary.ask(&rule), "+OK\r\n", "{rule:?}");
    let url = sentinel.url("main").replacen("127", "app:pw@127", 1);
    let store = RedisStore::connect(url).await.expect("permitted");
    super::permissions::works(&store).await;
    assert_eq!(
        primary.ask(&["ACL", "LOG"]),
        "*0\r\n",
        "something was denied"
    );
}

/// The machine of a sentinel is often that of a primary, and vanishes with it.
#[tokio::test]
async fn a_sentinel_that_says_nothing_is_passed_over() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let sentinel = Sentinel::of(&primary).unwrap();
    // Connections are accepted by the system; nobody reads from them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "redis+sentinel://{},127.0.0.1:{}/main",
        silent.local_addr().unwrap(),
        sentinel.port
    );
    let builder = RedisStore::builder(&url).connect_timeout(Duration::from_millis(200));
    let store = builder.connect().await.expect("the other one knows");
    // The client itself waits for a silent one for half a second at least.
    within(Duration::from_millis(450), async || {
        let started = Instant::now();
        let store = RedisStore::connect(&url).await;
        store.expect("the other one is asked at once");
        vec![started.elapsed()]
    })
    .await;
    let acquired = store.acquire(&new_claim(key(1))).await.unwrap();
    assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
}
