//! A primary that dies, a sentinel that names the next one, and a store that follows.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use idempotent_runtime::store::{
    Acquisition, Store, Write,
    conformance::key,
    redis::{ConnectError, RedisStore},
};
use tokio::task::block_in_place;

use super::{
    open,
    permissions::{documented_additions, documented_rule, every_operation_works},
    refused,
    wakeup::services,
};
use crate::{
    observe::Log,
    servers::{
        Folder, Process, free_port,
        redis::{Redis, ask},
        server, until,
    },
    service::latencies,
    toolbox::{FIRST, answered, done, new_claim, within},
    waiting::NOTIFIED,
};

struct Sentinel {
    port: u16,
    _process: Process,
    _folder: Folder,
}

impl Sentinel {
    /// A sentinel that watches this primary under the name `main`.
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
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(Self {
            port,
            _process: process,
            _folder: folder,
        })
    }

    /// The URL of a primary of this name.
    fn url(&self, primary: &str) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{primary}", self.port)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    let Some(mut primary) = Redis::start() else {
        return;
    };
    let replica = block_in_place(|| primary.replica()).unwrap();
    let sentinel = Sentinel::of(&primary).unwrap();
    // Confirmed, so that the failover loses nothing.
    let builder = RedisStore::builder(sentinel.url("main"));
    let store = open(builder.wait_replicas(1, Duration::from_millis(500))).await;
    let reader = open(RedisStore::builder(sentinel.url("main"))).await;
    for n in 0..50 {
        let mine = new_claim(key(n));
        assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
        let (held, outcome) = (mine.held(), done());
        let completed = answered(|| store.complete(&held, &outcome)).await;
        assert_eq!(completed, Write::Applied);
    }
    let knows_replica = || {
        let known = ask(sentinel.port, &["SENTINEL", "replicas", "main"]);
        known.contains(&replica.port().to_string()).then_some(())
    };
    block_in_place(|| until("the sentinel to find the replica", knows_replica));

    let killed = Instant::now();
    primary.kill();
    for n in 0..50 {
        let next = new_claim(key(n));
        let again = answered(|| reader.acquire(&next)).await;
        assert_eq!(again, Acquisition::Completed(done()), "key {n}");
    }
    println!(
        "50 confirmed outcomes replayed {:?} after the primary was killed",
        killed.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_wakes_engines_that_found_the_primary_by_sentinels() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let sentinel = Sentinel::of(&primary).unwrap();
    within(NOTIFIED, async || {
        let [first, second] = services([&sentinel.url("main"); 2]).await;
        latencies(&first, &second, 2).await
    })
    .await;
}

#[tokio::test]
async fn a_name_that_the_sentinel_does_not_know_is_reported() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let sentinel = Sentinel::of(&primary).unwrap();
    // The answer of one sentinel is reported even if another one is silent.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let url = sentinel
        .url("other")
        .replacen("127", &format!("{silent},127"), 1);
    for url in [sentinel.url("other"), url] {
        match refused(RedisStore::builder(url)).await {
            ConnectError::Unreachable { source } => {
                assert!(source.to_string().contains("not found"), "{source}");
            }
            other => panic!("{other:?} instead of the name"),
        }
    }
}

/// The store asks the primary for its role with the service's permissions.
#[tokio::test]
async fn the_documented_permissions_are_enough_with_sentinels() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let sentinel = Sentinel::of(&primary).unwrap();
    let mut rule = documented_rule();
    let additions = documented_additions("sentinels");
    rule.extend(additions.iter().map(String::as_str));
    assert_eq!(primary.ask(&rule), "+OK\r\n", "{rule:?}");
    let url = sentinel.url("main").replacen("127", "app:pw@127", 1);
    let store = open(RedisStore::builder(url)).await;
    every_operation_works(&store).await;
    let denied = primary.ask(&["ACL", "LOG"]);
    assert_eq!(denied, "*0\r\n", "something was denied");
}

/// A sentinel often runs on the machine of a primary, and fails with it.
#[tokio::test]
async fn a_silent_sentinel_is_skipped() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let sentinel = Sentinel::of(&primary).unwrap();
    // The kernel accepts connections; nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "redis+sentinel://{},127.0.0.1:{}/main",
        silent.local_addr().unwrap(),
        sentinel.port
    );
    // The client gives a silent one a second to accept the connection, and half a second to answer.
    within(Duration::from_millis(1700), async || {
        let started = Instant::now();
        open(RedisStore::builder(&url)).await;
        vec![started.elapsed()]
    })
    .await;
    let store = open(RedisStore::builder(&url)).await;
    assert_eq!(store.acquire(&new_claim(key(1))).await.unwrap(), FIRST);
}

/// The next primary lacks the setting that the first one has.
#[tokio::test]
async fn a_primary_that_takes_over_is_warned_of_as_well() {
    let Some(mut primary) = Redis::start() else {
        return;
    };
    let replica = primary.replica().unwrap();
    primary.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let sentinel = Sentinel::of(&primary).unwrap();
    let (log, _guard) = Log::collect();
    let store = open(RedisStore::builder(sentinel.url("main"))).await;
    // The primary refuses until it has heard of its replica.
    let mine = new_claim(key(1));
    assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
    until("the sentinel to find the replica", || {
        let known = ask(sentinel.port, &["SENTINEL", "replicas", "main"]);
        known.contains(&replica.port().to_string()).then_some(())
    });
    let warned = || {
        let text = log.text();
        let warned =
            |line: &&str| line.contains(" WARN ") && line.contains("min-replicas-to-write");
        text.lines().filter(warned).count()
    };
    assert_eq!(warned(), 0);
    primary.kill();
    for n in 2..5 {
        let claim = new_claim(key(n));
        assert_eq!(answered(|| store.acquire(&claim)).await, FIRST);
    }
    assert_eq!(warned(), 1, "{}", log.text());
}

/// Then the processes that reach it and those that reach its successor would claim the same keys.
#[tokio::test]
async fn a_primary_that_writes_without_its_replicas_is_warned_of() {
    let Some(primary) = Redis::start() else {
        return;
    };
    let sentinel = Sentinel::of(&primary).unwrap();
    for (replicas, warns) in [("0", true), ("1", false)] {
        primary.ask(&["CONFIG", "SET", "min-replicas-to-write", replicas]);
        let (log, _guard) = Log::collect();
        open(RedisStore::builder(sentinel.url("main"))).await;
        let text = log.text();
        let warned = text
            .lines()
            .any(|line| line.contains(" WARN ") && line.contains("`min-replicas-to-write 1`"));
        assert_eq!(warned, warns, "{text}");
    }
}
