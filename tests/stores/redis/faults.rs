//! Servers that are killed, cut off or silent during an operation.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use idempotent_runtime::{
    StoreKey,
    store::{Acquisition, AnyStore, Store, StoreErrorKind, Weakness, Write, conformance::key},
};

use super::{at, on, open};
use crate::{
    observe::Log,
    proxy::Proxy,
    servers::redis::Redis,
    toolbox::{
        FIRST, acquire_all, answered, assert_in_flight, chain, done, eventually, new_claim,
        replays, within,
    },
};

/// A store that reaches its server by a proxy.
async fn through(proxy: &Proxy) -> AnyStore {
    open(at(proxy.port()).response_timeout(Duration::from_millis(300))).await
}

/// The server is killed between any two operations; a durable one loses nothing.
#[tokio::test]
async fn claims_and_outcomes_survive_a_kill_at_any_point() {
    let Some(mut redis) = Redis::flushing() else {
        return;
    };
    let store = open(on(&redis)).await;
    let [mine, other] = [(); 2].map(|()| new_claim(key(1)));
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    redis.restart();
    // Another request finds the lease, and its owner still has it.
    assert_in_flight(&answered(|| store.acquire(&other)).await);
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    redis.restart();
    let (held, outcome) = (mine.held(), done());
    let completed = answered(|| store.complete(&held, &outcome)).await;
    assert_eq!(completed, Write::Applied);
    redis.restart();
    let answer = answered(|| store.acquire(&other)).await;
    assert_eq!(answer, Acquisition::Completed(done()));
    let again = store.complete(&mine.held(), &done()).await;
    assert_eq!(again.unwrap(), Write::Applied, "a repetition");
}

/// The server is killed under load: every acknowledged outcome is there, and no acquire was acknowledged twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_operations_lose_nothing_acknowledged() {
    const EACH: usize = 100;
    let keys_of = |client: u8| {
        (0..).take(EACH).map(move |n| {
            let mut bytes = [client; 32];
            bytes[31] = n;
            StoreKey::from_bytes(bytes)
        })
    };

    let Some(mut redis) = Redis::flushing() else {
        return;
    };
    let store = open(on(&redis)).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for client in 0..8_u8 {
        let (store, acknowledged) = (store.clone(), Arc::clone(&acknowledged));
        let executing = async move {
            for key in keys_of(client) {
                let mine = new_claim(key);
                assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
                let (held, outcome) = (mine.held(), done());
                let completed = answered(|| store.complete(&held, &outcome)).await;
                assert_eq!(completed, Write::Applied);
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        };
        clients.push(tokio::spawn(executing.boxed()));
    }
    for kill in 1..=5 {
        let (so_far, enough) = (|| acknowledged.load(Ordering::SeqCst), kill * EACH);
        let found = || format!("{} of {enough} outcomes", so_far());
        eventually(async || so_far() >= enough, found).await;
        tokio::task::block_in_place(|| redis.restart());
    }
    for client in clients {
        client.await.expect("no panic");
    }
    for key in (0..8).flat_map(keys_of) {
        let next = new_claim(key);
        let again = answered(|| store.acquire(&next)).await;
        assert_eq!(again, Acquisition::Completed(done()));
    }
}

/// Without persistence, a kill loses claims, and the key executes again: the operator has accepted that.
#[tokio::test]
async fn a_kill_without_persistence_loses_claims_as_accepted() {
    let Some(mut redis) = Redis::with(&[]) else {
        return;
    };
    let store = open(on(&redis).accept(Weakness::AppendOnlyOff)).await;
    let [mine, next] = [(); 2].map(|()| new_claim(key(1)));
    store.acquire(&mine).await.unwrap();
    redis.restart();
    let second = answered(|| store.acquire(&next)).await;
    assert_eq!(second, FIRST, "a second execution");
    // The first one finds the lease of another.
    let late = store.complete(&mine.held(), &done()).await;
    assert_eq!(late.unwrap(), Write::Fenced);
}

/// The address leads to another server, or to the same one after a restart. Only the second one may be harmless.
#[tokio::test]
async fn another_server_behind_the_same_address_is_reported() {
    let Some(mut first) = Redis::flushing() else {
        return;
    };
    let Some(empty) = Redis::start() else { return };
    let proxy = Proxy::to(first.port());
    let store = through(&proxy).await;
    store.acquire(&new_claim(key(1))).await.unwrap();
    let (log, _guard) = Log::collect();
    let known = key(1);
    // As often as the connection is made again: what stays the same is not reported.
    for _ in 0..2 {
        proxy.cut();
        store.get(&key(1)).await.unwrap();
    }
    assert!(!log.text().contains("replaced"), "{}", log.text());
    first.restart();
    assert!(answered(|| store.get(&known)).await.is_some());
    proxy.move_to(empty.port());
    proxy.cut();
    assert!(answered(|| store.get(&known)).await.is_none());
    let text = log.text();
    let said: Vec<_> = text
        .lines()
        .filter(|line| line.contains("restarted or replaced"))
        .collect();
    assert_eq!(said.len(), 2, "{text}");
    assert!(said[0].contains(" WARN "), "{}", said[0]);
    assert!(
        said[1].contains(" ERROR ") && said[1].contains("empty"),
        "{}",
        said[1]
    );
}

/// Another server got the address, and would lose what it acknowledges. The store would not have been opened on it.
#[tokio::test]
async fn a_weaker_server_behind_the_same_address_gets_no_operation() {
    let Some(first) = Redis::flushing() else {
        return;
    };
    let Some(weaker) = Redis::with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"])
    else {
        return;
    };
    let _replica = first.replica().unwrap();
    let proxy = Proxy::to(first.port());
    let store = through(&proxy).await;
    let confirmed = at(proxy.port()).wait_replicas(1, Duration::from_secs(5));
    let confirmed = open(confirmed).await;
    for (store, n) in [(&store, 1), (&confirmed, 2)] {
        store.acquire(&new_claim(key(n))).await.unwrap();
    }
    let (log, _guard) = Log::collect();
    proxy.move_to(weaker.port());
    proxy.cut();
    for (store, n) in [(&store, 3), (&confirmed, 4)] {
        for _ in 0..3 {
            let error = store.acquire(&new_claim(key(n))).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
            let why = chain(&error);
            if !why.contains("appendonly") {
                // The first one on each connection finds it broken.
                assert!(
                    why.contains("broken") || why.contains("dropped") || why.contains("closed"),
                    "{why}"
                );
            }
        }
    }
    assert_eq!(weaker.ask(&["DBSIZE"]), ":0\r\n");
    let text = log.text();
    let refused = |line: &&str| line.contains(" ERROR ") && line.contains("operations fail until");
    // Once for each store, not for each connection, with both weaknesses.
    let said: Vec<_> = text.lines().filter(refused).collect();
    assert_eq!(said.len(), 2, "{text}");
    for part in ["appendonly", "maxmemory-policy", "allkeys-lru"] {
        assert!(said[0].contains(part), "{}", said[0]);
    }
    weaker.ask(&["CONFIG", "SET", "appendonly", "yes"]);
    weaker.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let claim = new_claim(key(5));
    assert_eq!(answered(|| store.acquire(&claim)).await, FIRST);
}

/// What was accepted when the store was opened is accepted of the next server too, and said.
#[tokio::test]
async fn an_accepted_weakness_of_another_server_is_a_warning() {
    let Some(first) = Redis::flushing() else {
        return;
    };
    let Some(weaker) = Redis::with(&[]) else {
        return;
    };
    let proxy = Proxy::to(first.port());
    let builder = at(proxy.port()).accept(Weakness::AppendOnlyOff);
    let store = open(builder).await;
    let (log, _guard) = Log::collect();
    proxy.move_to(weaker.port());
    for n in 0..3 {
        proxy.cut();
        let claim = new_claim(key(n));
        answered(|| store.acquire(&claim)).await;
    }
    let text = log.text();
    let warned = |line: &&str| line.contains(" WARN ") && line.contains("appendonly");
    assert_eq!(text.lines().filter(warned).count(), 1, "{text}");
}

/// The server carried the operation out, and the reply was lost: the store repeats it, unless its caller has to know.
#[tokio::test]
async fn an_operation_whose_reply_was_lost_is_repeated_without_harm() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::to(redis.port());
    let store = through(&proxy).await;
    let lost = new_claim(key(1));
    store.acquire(&lost).await.unwrap();
    store.abandon(&key(1), &lost.token).await.unwrap();
    let mine = new_claim(key(1)).take_over(lost.token);

    let second = Acquisition::Acquired { attempt: 2 };
    proxy.lose_next_reply();
    let error = store.acquire(&mine).await.expect_err("the reply was lost");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(store.acquire(&mine).await.unwrap(), second);
    proxy.lose_next_reply();
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    proxy.lose_next_reply();
    let abandoned = store.abandon(&key(1), &mine.token).await;
    assert_eq!(abandoned.unwrap(), Write::Applied);
    proxy.lose_next_reply();
    let completed = store.complete(&mine.held(), &done()).await;
    assert_eq!(completed.unwrap(), Write::Applied);
    proxy.lose_next_reply();
    assert!(store.get(&key(1)).await.unwrap().is_some());
    replays(&store, key(1), &done()).await;
    assert_eq!(proxy.lost(), 5);

    // The store does not repeat a release: the answer to the repetition would differ.
    let other = new_claim(key(2));
    store.acquire(&other).await.unwrap();
    proxy.lose_next_reply();
    let error = store.release(&key(2), &other.token).await;
    let error = error.expect_err("no reply");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let again = store.release(&key(2), &other.token).await;
    assert_eq!(again.unwrap(), Write::Missing);
}

/// Without a reply an operation fails within the response time-out, and the store recovers with the server.
#[tokio::test]
async fn a_silent_server_is_given_up_in_time_and_found_again() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::to(redis.port());
    let store = through(&proxy).await;
    let mine = new_claim(key(1));
    within(Duration::from_millis(700), async || {
        proxy.silence(true);
        let started = Instant::now();
        let error = store.acquire(&mine).await.expect_err("no reply");
        let took = started.elapsed();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        proxy.silence(false);
        assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
        vec![took]
    })
    .await;
}

#[tokio::test]
async fn a_slow_server_is_waited_for() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::to(redis.port());
    let store = through(&proxy).await;
    proxy.delay(Duration::from_millis(100));
    crate::toolbox::execute(&store, &new_claim(key(1)), &done()).await;
}

/// All operations fail at once while the server is down, and succeed once it is back.
#[tokio::test]
async fn a_server_that_is_down_fails_operations_at_once_and_is_found_again() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let store = open(on(&redis)).await;
    redis.kill();
    within(Duration::from_secs(1), async || {
        let started = Instant::now();
        for answer in acquire_all(&store, (0..64).map(key)).await {
            let error = answer.expect_err("no server");
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        }
        vec![started.elapsed()]
    })
    .await;
    redis.restart();
    assert_eq!(store.acquire(&new_claim(key(1))).await.unwrap(), FIRST);
}

/// A dropped operation was carried out or was not; the next ones on its connection get their own replies.
#[tokio::test]
async fn a_dropped_operation_leaves_the_connection_in_order() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::to(redis.port());
    let store = through(&proxy).await;
    proxy.delay(Duration::from_millis(20));
    let mut dropped = 0;
    for n in 0..20 {
        let mine = new_claim(key(n));
        let acquired = tokio::time::timeout(Duration::from_millis(5), store.acquire(&mine)).await;
        // On a machine that stalls the reply may come first.
        dropped += u32::from(acquired.is_err());
        let next = store.acquire(&new_claim(key(100 + n))).await;
        assert_eq!(next.unwrap(), FIRST);
        assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    }
    assert!(dropped > 0, "none was dropped before its reply");
}

/// New connections are refused for a while: operations fail meanwhile, and succeed afterwards.
#[tokio::test]
async fn connections_that_are_cut_and_refused_are_made_anew() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::to(redis.port());
    let store = through(&proxy).await;
    for n in 0..5 {
        proxy.refuse(true);
        proxy.cut();
        let mine = new_claim(key(n));
        let error = store.acquire(&mine).await.expect_err("cut off");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        proxy.refuse(false);
        assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
        // A cut alone fails no operation.
        proxy.cut();
        let completed = store.complete(&mine.held(), &done()).await;
        assert_eq!(completed.unwrap(), Write::Applied);
    }
}
