//! Servers that are killed, cut off or silent in the middle of a verb.

use std::time::{Duration, Instant};

use idempotent_runtime::store::{
    Acquisition, Claim, Store, StoreErrorKind, Write, conformance::key, redis::RedisStore,
};

use crate::{
    proxy::Proxy,
    servers::redis::Redis,
    toolbox::{answered, done, new_claim, within},
};

async fn through(proxy: &Proxy) -> RedisStore {
    let store = RedisStore::builder(format!("redis://127.0.0.1:{}", proxy.port()));
    store
        .response_timeout(Duration::from_millis(300))
        .connect()
        .await
        .expect("a store")
}

/// Killed and restarted between any two verbs, a durable server has lost nothing.
#[tokio::test]
async fn claims_and_outcomes_survive_a_kill_at_any_point() {
    let Some(mut redis) = Redis::flushing() else {
        return;
    };
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let mine = new_claim(key(1));
    let other = new_claim(key(1));
    let acquired = Acquisition::Acquired { attempt: 1 };
    assert_eq!(store.acquire(&mine).await.unwrap(), acquired);
    redis.restart();
    // Somebody else meets the lease; its owner has it still.
    let answer = answered(|| store.acquire(&other)).await;
    assert!(matches!(answer, Acquisition::InFlight { .. }), "{answer:?}");
    assert_eq!(store.acquire(&mine).await.unwrap(), acquired);
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    redis.restart();
    let (held, outcome) = (mine.held(), done());
    let completed = answered(|| store.complete(&held, &outcome)).await;
    assert_eq!(completed, Write::Applied);
    redis.restart();
    let answer = answered(|| store.acquire(&other)).await;
    assert_eq!(answer, Acquisition::Completed(done()));
    let again = store.complete(&mine.held(), &done()).await.unwrap();
    assert_eq!(again, Write::Applied, "a repetition");
}

/// Killed under load: whatever was acknowledged is there, and nothing was acknowledged twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_verbs_loses_nothing_acknowledged() {
    let Some(mut redis) = Redis::flushing() else {
        return;
    };
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8_u8 {
        let store = store.clone();
        clients.spawn(async move {
            let mut claims = Vec::new();
            for n in 0..100_u8 {
                let mut bytes = [client; 32];
                bytes[31] = n;
                let mine = new_claim(idempotent_runtime::StoreKey::from_bytes(bytes));
                let acquired = answered(|| store.acquire(&mine)).await;
                assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
                let (held, outcome) = (mine.held(), done());
                let completed = answered(|| store.complete(&held, &outcome)).await;
                assert_eq!(completed, Write::Applied);
                claims.push(mine.key);
            }
            claims
        });
    }
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        tokio::task::block_in_place(|| redis.restart());
    }
    let mut stored = 0;
    for key in clients.join_all().await.into_iter().flatten() {
        let next = new_claim(key);
        let again = answered(|| store.acquire(&next)).await;
        assert_eq!(again, Acquisition::Completed(done()));
        stored += 1;
    }
    println!("{stored} outcomes acknowledged around 5 kills, {stored} there afterwards");
    assert_eq!(stored, 800);
}

/// The opt-out is what it says: without persistence a kill forgets claims, and the key executes again.
#[tokio::test]
async fn a_kill_without_persistence_loses_claims_as_the_opt_out_says() {
    let Some(mut redis) = Redis::with(&[]) else {
        return;
    };
    let weak = RedisStore::builder(redis.url()).accept_weaker_durability();
    let store = weak.connect().await.unwrap();
    let mine = new_claim(key(1));
    store.acquire(&mine).await.unwrap();
    redis.restart();
    let next = new_claim(key(1));
    let second = answered(|| store.acquire(&next)).await;
    assert_eq!(
        second,
        Acquisition::Acquired { attempt: 1 },
        "a second execution"
    );
    // What the first one finds: its lease is another's.
    assert_eq!(
        store.complete(&mine.held(), &done()).await.unwrap(),
        Write::Fenced
    );
}

/// The server did it, and nobody was told: the repetition finds it done, once.
#[tokio::test]
async fn a_verb_whose_reply_was_lost_is_repeated_without_harm() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::to(redis.port());
    let store = through(&proxy).await;
    let mine = new_claim(key(1)).take_over(true);

    proxy.lose_next_reply();
    let acquired = store.acquire(&mine).await.unwrap();
    assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
    proxy.lose_next_reply();
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    proxy.lose_next_reply();
    assert_eq!(
        store.abandon(&key(1), &mine.token).await.unwrap(),
        Write::Applied
    );
    proxy.lose_next_reply();
    assert_eq!(
        store.complete(&mine.held(), &done()).await.unwrap(),
        Write::Applied
    );
    proxy.lose_next_reply();
    assert!(store.get(&key(1)).await.unwrap().is_some());
    proxy.lose_next_reply();
    let again = store.acquire(&new_claim(key(1))).await.unwrap();
    assert_eq!(again, Acquisition::Completed(done()));
    assert_eq!(proxy.lost(), 6);

    // A release is not repeated by the store: the answer to the second would be another one.
    let other = new_claim(key(2));
    store.acquire(&other).await.unwrap();
    proxy.lose_next_reply();
    let error = store
        .release(&key(2), &other.token)
        .await
        .expect_err("no reply");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(
        store.release(&key(2), &other.token).await.unwrap(),
        Write::Missing
    );
}

/// No reply, no hang: an error within the response time-out, and all is well when the replies are back.
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
        let acquired = answered(|| store.acquire(&mine)).await;
        assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
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
    let mine = new_claim(key(1));
    assert_eq!(
        store.acquire(&mine).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
    assert_eq!(
        store.complete(&mine.held(), &done()).await.unwrap(),
        Write::Applied
    );
}

/// Verbs fail at once while the server is away, all of them, and succeed when it is back.
#[tokio::test]
async fn a_server_that_went_away_fails_verbs_at_once_and_is_found_again() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let store = RedisStore::connect(redis.url()).await.unwrap();
    redis.kill();
    within(Duration::from_secs(1), async || {
        let started = Instant::now();
        let mut verbs = tokio::task::JoinSet::new();
        for n in 0..64 {
            let store = store.clone();
            verbs.spawn(async move { store.acquire(&new_claim(key(n))).await });
        }
        for answer in verbs.join_all().await {
            assert_eq!(
                answer.expect_err("no server").kind(),
                StoreErrorKind::Unavailable
            );
        }
        vec![started.elapsed()]
    })
    .await;
    redis.restart();
    let answer = store.acquire(&new_claim(key(1))).await.unwrap();
    assert_eq!(answer, Acquisition::Acquired { attempt: 1 });
}

/// A dropped verb happened or did not; what comes after it on the same connection is not confused by it.
#[tokio::test]
async fn a_dropped_verb_leaves_the_connection_in_order() {
    let Some(redis) = Redis::start() else { return };
    let proxy = Proxy::to(redis.port());
    let store = through(&proxy).await;
    proxy.delay(Duration::from_millis(20));
    let mut left = 0;
    for n in 0..20 {
        let dropped = new_claim(key(n));
        let verb = tokio::time::timeout(Duration::from_millis(5), store.acquire(&dropped)).await;
        // A machine that stalls sees the reply first.
        left += u32::from(verb.is_err());
        let next: Claim = new_claim(key(100 + n));
        assert_eq!(
            store.acquire(&next).await.unwrap(),
            Acquisition::Acquired { attempt: 1 }
        );
        assert_eq!(
            store.acquire(&dropped).await.unwrap(),
            Acquisition::Acquired { attempt: 1 }
        );
    }
    assert!(left > 0, "none was dropped before its reply");
}

/// New connections are refused for a while: the verbs of that time fail, the next ones do not.
#[tokio::test]
async fn connections_that_are_cut_and_refused_come_back() {
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
        let acquired = store.acquire(&mine).await.unwrap();
        assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
        // And without refusal nobody notices.
        proxy.cut();
        assert_eq!(
            store.complete(&mine.held(), &done()).await.unwrap(),
            Write::Applied
        );
    }
}
