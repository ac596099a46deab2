//! Servers that are killed, cut off, silent or down, and operations that are dropped.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::join_all};
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
    toolbox::{FIRST, answered, assert_in_flight, done, eventually, new_claim},
};

on_each_server! {
    claims_and_outcomes_survive_a_kill_at_any_point,
    nothing_is_executed_twice_or_lost_while_the_server_is_killed_repeatedly,
    an_operation_whose_reply_was_lost_is_repeated_but_an_acquire_and_a_release_only_by_their_caller,
    a_silence_of_the_server_blocks_no_later_operation,
    operations_on_a_silent_server_time_out_by_themselves,
    a_server_slower_to_connect_than_a_time_out_is_reached,
    many_callers_make_no_more_connections_than_configured,
    a_closed_store_has_no_connections,
    a_server_that_is_down_is_unavailable,
    dropped_operations_spoil_no_connection,
}

/// The server is killed between any two operations: it loses nothing, and the store finds it again.
async fn claims_and_outcomes_survive_a_kill_at_any_point(kind: ServerKind) {
    let Some(mut server) = kind.start() else {
        return;
    };
    let store = server.store(server.port(), 4).await;
    let mine = new_claim(key(1));
    let (held, other, outcome) = (mine.held(), new_claim(key(1)), done());
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    server.restart();
    // Another request finds the lease, and its owner still has it.
    assert_in_flight(&answered(|| store.acquire(&other)).await);
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

/// What the clients saw of each key.
#[derive(Default)]
struct Ledger {
    executed: BTreeMap<[u8; 32], u32>,
    acknowledged: BTreeMap<[u8; 32], Outcome>,
}

/// Clients execute while the server is killed at arbitrary moments.
async fn nothing_is_executed_twice_or_lost_while_the_server_is_killed_repeatedly(kind: ServerKind) {
    let Some(mut server) = kind.start() else {
        return;
    };
    let store = server.store(server.port(), 4).await;
    let (ledger, over) = (
        Arc::new(Mutex::new(Ledger::default())),
        Arc::new(AtomicBool::new(false)),
    );
    let mut clients = Vec::new();
    for client in 0..8_u8 {
        let (ledger, over) = (Arc::clone(&ledger), Arc::clone(&over));
        let executing = execute_until(store.clone(), client, ledger, over);
        clients.push(tokio::spawn(executing.boxed()));
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
    for client in clients {
        client.await.expect("no panic");
    }

    let ledger = std::mem::take(&mut *ledger.lock().expect("no client panicked"));
    assert!(
        ledger.executed.values().all(|times| *times == 1),
        "executed twice"
    );
    for (key, outcome) in ledger.acknowledged {
        let again = new_claim(StoreKey::from_bytes(key));
        assert_eq!(
            answered(|| store.acquire(&again)).await,
            Acquisition::Completed(outcome)
        );
    }
}

/// Waits until this many outcomes were acknowledged.
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
        // Two clients with one key, like a request and its retry.
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

/// The server carries the operation out, and the reply is lost: the store repeats it with the same token, unless it is an
/// acquire, whose caller has to know.
async fn an_operation_whose_reply_was_lost_is_repeated_but_an_acquire_and_a_release_only_by_their_caller(
    kind: ServerKind,
) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 2).await;
    for n in 1..=20 {
        let mine = new_claim(key(n));
        // Connects first, so that the lost reply is that of the operation and not that of a preparation.
        store.get(&key(n)).await.unwrap();
        proxy.lose_next_reply();
        let error = store.acquire(&mine).await.expect_err("the reply was lost");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
        proxy.lose_next_reply();
        assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
        proxy.lose_next_reply();
        assert_eq!(
            store.complete(&mine.held(), &done()).await.unwrap(),
            Write::Applied
        );
        let given_back = new_claim(key(100 + n));
        assert_eq!(store.acquire(&given_back).await.unwrap(), FIRST);
        proxy.lose_next_reply();
        let released = store.release(&given_back.key, &given_back.token).await;
        // Not `Missing`, which would be said of the second copy.
        let error = released.expect_err("the reply was lost");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    }
    assert_eq!(proxy.lost(), 80);
}

/// The server accepts requests and does not reply: operations time out, and the connections that waited for a reply are not
/// used again.
async fn a_silence_of_the_server_blocks_no_later_operation(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 1).await;
    let owners: Vec<_> = (1..=4).map(|n| new_claim(key(n))).collect();
    proxy.silence(true);
    let claims = owners
        .iter()
        .map(|owner| tokio::time::timeout(Duration::from_millis(200), store.acquire(owner)));
    for waited in join_all(claims).await {
        waited.expect_err("there is no reply");
    }
    proxy.silence(false);
    for owner in &owners {
        // The only connection may have been begun at the end of the silence; it has five seconds to be made.
        assert_eq!(answered(|| store.acquire(owner)).await, FIRST);
        assert_eq!(
            store.complete(&owner.held(), &done()).await.unwrap(),
            Write::Applied
        );
    }
}

/// Without a time-out of the caller every operation still ends, with an error that permits a repetition, and leaves nothing
/// behind.
async fn operations_on_a_silent_server_time_out_by_themselves(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 2).await;
    let (mine, late) = (new_claim(key(1)), new_claim(key(2)));
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    proxy.silence(true);
    let started = Instant::now();
    let (held, done) = (mine.held(), done());
    // More operations than connections, so that some wait for a connection.
    let answers = tokio::join!(
        async { store.acquire(&late).await.map(drop) },
        async { store.renew(&held).await.map(drop) },
        async { store.complete(&held, &done).await.map(drop) },
        async { store.release(&held.key, &late.token).await.map(drop) },
        async { store.abandon(&held.key, &late.token).await.map(drop) },
        async { store.get(&held.key).await.map(drop) },
        async { store.purge_expired(10).await.map(drop) },
    );
    let took = started.elapsed();
    for answer in <[_; 7]>::from(answers) {
        let error = answer.expect_err("there is no reply");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    }
    assert!(
        took < Duration::from_secs(10),
        "{took:?} instead of twice two seconds"
    );
    proxy.silence(false);
    // The store may have to connect first.
    let completed = answered(|| store.complete(&held, &done)).await;
    assert_eq!(completed, Write::Applied);
}

/// Connecting takes longer than the time-out of one operation. The connection that it began serves the next one.
async fn a_server_slower_to_connect_than_a_time_out_is_reached(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    for (n, store) in (1..).zip(server.impatient_stores(proxy.port(), 1).await) {
        let mine = new_claim(key(n));
        let n = u64::from(n);
        store.get(&mine.key).await.unwrap();
        let before = proxy.accepted();
        proxy.cut();
        proxy.delay_greetings(Duration::from_millis(1500));
        let started = Instant::now();
        // Not an acquire, which ends with the connection that was cut.
        let error = store
            .get(&mine.key)
            .await
            .expect_err("connecting takes longer");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        assert!(started.elapsed() >= Duration::from_secs(1), "{error:?}");
        assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
        let made = proxy.accepted() - before;
        // The application's pool may still be closing the connection that was cut. The first caller then waits for that
        // place, makes the next connection itself, and drops it when it times out.
        assert!(made <= n, "{made} connections");
        proxy.delay_greetings(Duration::ZERO);
    }
}

/// Many callers wait for connections that are slow to be made: as many as configured are made, and serve all of them.
async fn many_callers_make_no_more_connections_than_configured(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 3).await;
    let before = proxy.accepted();
    // Longer than all callers take to start, and a fifth of the time that a connection may take.
    proxy.delay_greetings(Duration::from_secs(1));
    let callers = (0..40).map(|n| {
        let store = &store;
        let mine = new_claim(StoreKey::from_bytes([n; 32]));
        async move {
            // Every other one is dropped before a connection is made.
            if n % 2 == 0 {
                let soon = Duration::from_millis(u64::from(n));
                let _dropped = tokio::time::timeout(soon, store.acquire(&mine)).await;
            }
            assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
        }
    });
    join_all(callers).await;
    let made = proxy.accepted() - before;
    assert!(made <= 3, "{made} connections were made");
}

/// Neither idle ones nor ones that are being made.
async fn a_closed_store_has_no_connections(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let (store, close) = server.closable_store(proxy.port(), 3).await;
    proxy.delay(Duration::from_secs(1));
    let making = async {
        let claims = [key(1), key(2), key(3)].map(new_claim);
        let acquiring = claims.iter().map(|claim| store.acquire(claim).boxed());
        join_all(acquiring).await;
    };
    let before = proxy.accepted();
    let begun = eventually(
        async || proxy.accepted() > before,
        || "no connection is being made".to_owned(),
    );
    tokio::select! {
        () = making => panic!("all on one connection"),
        () = begun => {}
    }
    close.await;
    at_most_open(0, &proxy).await;
    let error = store.get(&key(1)).await.expect_err("the store is closed");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
}

/// A firewall may drop idle connections without closing them. The store closes them first, in an orderly way.
async fn connections_that_were_idle_for_long_are_replaced(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 4).await;
    store.get(&key(1)).await.unwrap();
    let before = proxy.accepted();
    store.get(&key(1)).await.unwrap();
    assert_eq!(proxy.accepted(), before, "a recent one is used again");
    // No request is on its way, so that only the store's own clock moves.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    store.get(&key(1)).await.unwrap();
    assert_eq!(proxy.accepted(), before + 1, "an idle one is replaced");
    at_most_open(1, &proxy).await;
}

/// Waits until at most so many connections are open.
async fn at_most_open(most: u64, proxy: &Proxy) {
    eventually(
        async || proxy.open() <= most,
        || format!("{} are open", proxy.open()),
    )
    .await;
}

/// On one thread, where the clock can be moved.
#[tokio::test]
async fn connections_to_postgres_that_were_idle_for_long_are_replaced() {
    connections_that_were_idle_for_long_are_replaced(ServerKind::Postgres).await;
}

#[tokio::test]
async fn connections_to_mysql_that_were_idle_for_long_are_replaced() {
    connections_that_were_idle_for_long_are_replaced(ServerKind::MariaDb).await;
}

/// The error comes at once, and permits a repetition.
async fn a_server_that_is_down_is_unavailable(kind: ServerKind) {
    let Some(mut server) = kind.start() else {
        return;
    };
    let store = server.store(server.port(), 2).await;
    let mine = new_claim(key(1));
    server.kill();
    // Child processes of a killed PostgreSQL may answer until they notice.
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

/// A dropped operation was carried out or was not; the next one on its connection gets its own reply.
async fn dropped_operations_spoil_no_connection(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let store = server.store(server.port(), 2).await;
    for round in 0..120_u8 {
        // New keys in each round: a dropped request may still arrive at any time.
        let key = |n| {
            StoreKey::from_bytes(
                [[round; 16], [n; 16]]
                    .concat()
                    .try_into()
                    .expect("32 bytes"),
            )
        };
        let claims: Vec<_> = (1..=6).map(|n| new_claim(key(n))).collect();
        let acquiring = join_all(claims.iter().map(|claim| store.acquire(claim).boxed()));
        let soon = Duration::from_micros(u64::from(round) * 25);
        let _dropped = tokio::time::timeout(soon, acquiring).await;
        for owner in &claims {
            assert_eq!(answered(|| store.acquire(owner)).await, FIRST);
            assert_eq!(
                store.complete(&owner.held(), &done()).await.unwrap(),
                Write::Applied
            );
        }
    }
}
