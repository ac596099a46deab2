//! Servers of SQL stores that are killed, cut off, silent or gone, and callers that go away. The same for each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use idempotent_runtime::{
    StoreKey,
    store::{
        Acquisition, AnyStore, Outcome, Store, StoreErrorKind, Write,
        conformance::{key, response},
    },
};

use crate::{
    proxy::Proxy,
    sql::server::{ServerKind, on_each_server},
    toolbox::{FIRST, answered, done, eventually, new_claim},
};

on_each_server! {
    claims_and_outcomes_survive_a_kill_at_any_point,
    nothing_runs_twice_or_is_lost_while_the_server_is_killed_again_and_again,
    a_lost_reply_is_made_up_for,
    a_server_that_falls_silent_blocks_nobody_for_good,
    a_silent_server_ends_every_verb_by_the_stores_own_clock,
    a_server_that_is_slow_to_let_in_is_reached,
    a_crowd_makes_no_more_connections_than_there_may_be,
    no_connection_outlives_a_store_that_was_closed,
    a_server_that_is_gone_is_unavailable,
    callers_that_go_away_poison_no_connection,
}

/// Killed and restarted between any two verbs, the server has lost nothing, and the store finds it again.
async fn claims_and_outcomes_survive_a_kill_at_any_point(kind: ServerKind) {
    let Some(mut server) = kind.start() else {
        return;
    };
    let store = server.store(server.port(), 4).await;
    let mine = new_claim(key(1));
    let (held, other, outcome) = (mine.held(), new_claim(key(1)), done());
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    server.restart();
    // Somebody else meets the lease; its owner has it still.
    let answer = answered(|| store.acquire(&other)).await;
    assert!(matches!(answer, Acquisition::InFlight { .. }), "{answer:?}");
    assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
    server.restart();
    assert_eq!(
        answered(|| store.complete(&held, &outcome)).await,
        Write::Applied
    );
    server.restart();
    assert_eq!(
        answered(|| store.acquire(&other)).await,
        Acquisition::Completed(outcome.clone())
    );
    assert_eq!(
        answered(|| store.complete(&held, &outcome)).await,
        Write::Applied
    );
}

/// What happened to each key, as the clients saw it.
#[derive(Default)]
struct Ledger {
    executed: BTreeMap<[u8; 32], u32>,
    acknowledged: BTreeMap<[u8; 32], Outcome>,
}

/// Clients execute while the server is killed at moments that nobody chose.
async fn nothing_runs_twice_or_is_lost_while_the_server_is_killed_again_and_again(
    kind: ServerKind,
) {
    let Some(mut server) = kind.start() else {
        return;
    };
    let store = server.store(server.port(), 4).await;
    let (ledger, over) = (
        Arc::new(Mutex::new(Ledger::default())),
        Arc::new(AtomicBool::new(false)),
    );
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8_u8 {
        clients.spawn(execute_until(
            store.clone(),
            client,
            Arc::clone(&ledger),
            Arc::clone(&over),
        ));
    }
    let mut enough = 0;
    for _ in 0..3 {
        enough += 10;
        acknowledged(&ledger, enough).await;
        server = tokio::task::spawn_blocking(move || {
            server.restart();
            server
        })
        .await
        .expect("a restart");
    }
    acknowledged(&ledger, enough + 10).await;
    over.store(true, Ordering::SeqCst);
    clients.join_all().await;

    let ledger = std::mem::take(&mut *ledger.lock().expect("no client panicked"));
    assert!(
        ledger.executed.values().all(|times| *times == 1),
        "executed twice"
    );
    for (key, outcome) in ledger.acknowledged {
        let again = new_claim(StoreKey::from_bytes(key)).take_over(true);
        assert_eq!(
            answered(|| store.acquire(&again)).await,
            Acquisition::Completed(outcome)
        );
    }
}

/// Waits until the ledger has this many.
async fn acknowledged(ledger: &Mutex<Ledger>, enough: usize) {
    let so_far = || {
        ledger
            .lock()
            .expect("no client panicked")
            .acknowledged
            .len()
    };
    eventually(
        async || so_far() >= enough,
        || format!("{} of {enough}", so_far()),
    )
    .await;
}

async fn execute_until(
    store: AnyStore,
    client: u8,
    ledger: Arc<Mutex<Ledger>>,
    over: Arc<AtomicBool>,
) {
    for n in 0_u32.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let mut key = [client; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        // Two clients with one key, as a retry would have it.
        let claims = [0; 2].map(|_| new_claim(StoreKey::from_bytes(key)));
        let [one, other] = &claims;
        let acquired = tokio::join!(
            answered(|| store.acquire(one)),
            answered(|| store.acquire(other))
        );
        for (claim, acquisition) in claims.iter().zip(<[_; 2]>::from(acquired)) {
            if acquisition != FIRST {
                continue;
            }
            *ledger
                .lock()
                .expect("no client panicked")
                .executed
                .entry(key)
                .or_default() += 1;
            let outcome = Outcome::Response(response(200, &[], format!("{client} {n}").as_bytes()));
            let held = claim.held();
            assert_eq!(
                answered(|| store.complete(&held, &outcome)).await,
                Write::Applied
            );
            ledger
                .lock()
                .expect("no client panicked")
                .acknowledged
                .insert(key, outcome);
        }
    }
}

/// The server does what it was asked, and the answer is lost: the store asks again, with the same token.
async fn a_lost_reply_is_made_up_for(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 2).await;
    for n in 1..=20 {
        let mine = new_claim(key(n));
        // Warm, so that what is lost is the reply to the verb and not to its preparation.
        store.get(&key(n)).await.unwrap();
        proxy.lose_next_reply();
        assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
        proxy.lose_next_reply();
        assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
        proxy.lose_next_reply();
        assert_eq!(
            store.complete(&mine.held(), &done()).await.unwrap(),
            Write::Applied
        );
    }
    assert_eq!(proxy.lost(), 60);
}

/// A server that takes requests and says nothing costs the caller its patience, and nothing afterwards: the
/// connections that were waiting are not given to anybody else.
async fn a_server_that_falls_silent_blocks_nobody_for_good(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 1).await;
    let owners: Vec<_> = (1..=4).map(|n| new_claim(key(n))).collect();
    proxy.silence(true);
    let claims = owners
        .iter()
        .map(|owner| tokio::time::timeout(Duration::from_millis(200), store.acquire(owner)));
    for waited in futures_util::future::join_all(claims).await {
        waited.expect_err("nothing was said");
    }
    proxy.silence(false);
    for owner in &owners {
        // A connection that was begun at the end of the silence, in the only place there is, has five seconds.
        assert_eq!(answered(|| store.acquire(owner)).await, FIRST);
        assert_eq!(
            store.complete(&owner.held(), &done()).await.unwrap(),
            Write::Applied
        );
    }
}

/// Nobody stands behind these verbs with a clock of their own, and still they end: with an error that says that a
/// repetition may help, and with nothing left behind.
async fn a_silent_server_ends_every_verb_by_the_stores_own_clock(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 2).await;
    let (mine, late) = (new_claim(key(1)), new_claim(key(2)));
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    proxy.silence(true);
    let asked = Instant::now();
    let (held, done) = (mine.held(), done());
    // More than there are connections, so that some wait for one.
    let answers = tokio::join!(
        async { store.acquire(&late).await.map(drop) },
        async { store.renew(&held).await.map(drop) },
        async { store.complete(&held, &done).await.map(drop) },
        async { store.release(&held.key, &late.token).await.map(drop) },
        async { store.abandon(&held.key, &late.token).await.map(drop) },
        async { store.get(&held.key).await.map(drop) },
        async { store.purge_expired(10).await.map(drop) },
    );
    let took = asked.elapsed();
    for answer in <[_; 7]>::from(answers) {
        let error = answer.expect_err("nothing was said");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    }
    assert!(
        took < Duration::from_secs(10),
        "twice two seconds: {took:?}"
    );
    proxy.silence(false);
    // As above.
    let completed = answered(|| store.complete(&held, &done)).await;
    assert_eq!(completed, Write::Applied);
}

/// Letting somebody in takes longer than a caller's patience. What one began in vain serves the next.
async fn a_server_that_is_slow_to_let_in_is_reached(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    for (n, store) in (1..).zip(server.impatient_stores(proxy.port()).await) {
        let mine = new_claim(key(n));
        let n = u64::from(n);
        store.get(&mine.key).await.unwrap();
        let before = proxy.accepted();
        proxy.cut();
        proxy.delay_greetings(Duration::from_millis(1500));
        let asked = Instant::now();
        let error = store.acquire(&mine).await.expect_err("it takes longer");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        assert!(asked.elapsed() >= Duration::from_secs(1), "{error:?}");
        assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
        let made = proxy.accepted() - before;
        // While the application's pool still closes the one that was cut, the first caller waits for that room, makes the
        // next one itself and leaves it half-way.
        assert!(made <= n, "{made} connections");
        proxy.delay_greetings(Duration::ZERO);
    }
}

/// Many want a connection while they take long to make. Those that are made are no more than there may be, and serve all.
async fn a_crowd_makes_no_more_connections_than_there_may_be(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 3).await;
    let before = proxy.accepted();
    // Longer than it takes all of them to come, and a fifth of the time there is for it.
    proxy.delay_greetings(Duration::from_secs(1));
    let crowd = (0..40).map(|n| {
        let store = &store;
        let alone = new_claim(StoreKey::from_bytes([n; 32]));
        async move {
            // Every other one has gone before a connection is made.
            if n % 2 == 0 {
                let patience = Duration::from_millis(u64::from(n));
                let _gone = tokio::time::timeout(patience, store.acquire(&alone)).await;
            }
            assert_eq!(answered(|| store.acquire(&alone)).await, FIRST);
        }
    });
    futures_util::future::join_all(crowd).await;
    let made = proxy.accepted() - before;
    assert!(made <= 3, "{made} connections were made");
}

/// Not one that is idle, nor one that is being made.
async fn no_connection_outlives_a_store_that_was_closed(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let (store, close) = server.closable_store(proxy.port(), 3).await;
    proxy.delay(Duration::from_secs(1));
    let making = async {
        let claims = [key(1), key(2), key(3)].map(|key| new_claim(key));
        let acquiring = claims.iter().map(|claim| store.acquire(claim));
        futures_util::future::join_all(acquiring).await;
    };
    let before = proxy.accepted();
    let begun = eventually(
        async || proxy.accepted() > before,
        || "none is being made".to_owned(),
    );
    tokio::select! {
        () = making => panic!("all on one connection"),
        () = begun => {}
    }
    close.await;
    all_but(0, &proxy).await;
    let error = store.get(&key(1)).await.expect_err("it is closed");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
}

/// Whoever stands in between forgets idle connections without a word. The store closes them before, and says goodbye.
async fn connections_that_were_idle_for_long_are_made_anew(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 4).await;
    store.get(&key(1)).await.unwrap();
    let before = proxy.accepted();
    store.get(&key(1)).await.unwrap();
    assert_eq!(proxy.accepted(), before, "a young one is used again");
    // Nothing is on its way, so that only the store's own clock moves.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    store.get(&key(1)).await.unwrap();
    assert_eq!(proxy.accepted(), before + 1, "an old one is not");
    all_but(1, &proxy).await;
}

/// Waits until so many connections, at most, are left.
async fn all_but(most: u64, proxy: &Proxy) {
    eventually(
        async || proxy.open() <= most,
        || format!("{} are open", proxy.open()),
    )
    .await;
}

/// On one thread, where time can be moved.
#[tokio::test]
async fn connections_to_postgres_that_were_idle_for_long_are_made_anew() {
    connections_that_were_idle_for_long_are_made_anew(ServerKind::Postgres).await;
}

#[tokio::test]
async fn connections_to_mysql_that_were_idle_for_long_are_made_anew() {
    connections_that_were_idle_for_long_are_made_anew(ServerKind::MariaDb).await;
}

/// A server that is not there is told at once, as an error that a repetition may do away with.
async fn a_server_that_is_gone_is_unavailable(kind: ServerKind) {
    let Some(mut server) = kind.start() else {
        return;
    };
    let store = server.store(server.port(), 2).await;
    let mine = new_claim(key(1));
    server.kill();
    // What a killed PostgreSQL leaves of processes may answer until it notices.
    let refused = async {
        loop {
            if let Err(refused) = store.acquire(&mine).await {
                break refused;
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(30), refused).await;
    let refused = refused.expect("no server, no claim");
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable);
    server.restart();
    assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
}

/// Verbs that are dropped at any moment happened or did not, and leave nothing to the next one.
async fn callers_that_go_away_poison_no_connection(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let store = server.store(server.port(), 2).await;
    for round in 0..120_u8 {
        // Keys of this round only: what was dropped on its way may still arrive, whenever it wants.
        let key = |n| {
            StoreKey::from_bytes(
                [[round; 16], [n; 16]]
                    .concat()
                    .try_into()
                    .expect("32 bytes"),
            )
        };
        let claims: Vec<_> = (1..=6).map(|n| new_claim(key(n))).collect();
        let leaving =
            futures_util::future::join_all(claims.iter().map(|claim| store.acquire(claim)));
        let _left =
            tokio::time::timeout(Duration::from_micros(u64::from(round) * 25), leaving).await;
        for owner in &claims {
            assert_eq!(answered(|| store.acquire(owner)).await, FIRST);
            assert_eq!(
                store.complete(&owner.held(), &done()).await.unwrap(),
                Write::Applied
            );
        }
    }
}
