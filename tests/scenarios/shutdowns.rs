//! The end of an engine (contract, section 4; invariants I10, L3).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Extension, response::IntoResponse};
use idempotent_runtime::{Crash, Idempotency, MemoryStore, OnCrash, Policy, Recovery};
use tokio::sync::Semaphore;

use crate::support::{
    Ask, Conn, Face, Fault, Faulty, Server, Till, Verb, ask, asking, both, by_hand, crash,
    detached, frames, moment, pass, real, settle, stream, waiters,
};

const DEADLINE: Duration = Duration::from_secs(10);

/// Two engines on one store, as two processes have them.
fn two(policy: Policy) -> (Idempotency, Idempotency) {
    let store = MemoryStore::new();
    let engine = || {
        let engine = Idempotency::builder().store(store.clone()).policy(policy);
        engine.build().unwrap()
    };
    (engine(), engine())
}

#[test]
fn an_idle_engine_ends_at_once_and_for_good() {
    both(async |face| {
        let till = Till::new();
        let engine = Idempotency::builder().build().unwrap();
        let shop = face.shop(&engine, &till);
        ask(&shop, &Ask::pay("k")).await.is_charge(1);
        for _ in 0..2 {
            let report = engine.shutdown(DEADLINE).await;
            assert_eq!(
                (report.drained, report.unknown, report.unconfirmed),
                (0, 0, 0)
            );
        }

        // New work and replays are refused; what is not the engine's business passes.
        for key in ["k", "new"] {
            let answer = ask(&shop, &Ask::pay(key)).await;
            answer.is_problem(503, "overloaded");
            assert!(answer.headers.contains_key("retry-after"));
        }
        ask(&shop, &Ask::post("/pay")).await.is_charge(2);
    });
}

#[test]
fn a_shutdown_waits_for_what_runs_and_those_who_wait_for_it() {
    both(async |face| {
        // Given executions with a client, without one, and a duplicate that waits.
        let till = Till::new();
        let (engine, other) = two(Policy::new());
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &Ask::pay("k1"));
        till.started(1).await;
        let left = asking(&shop, &Ask::pay("k2"));
        till.started(2).await;
        left.abort();
        let waiter = asking(&shop, &Ask::pay("k1"));
        settle().await;
        assert_eq!((detached(&engine), waiters(&engine)), (1, 1));

        // When the engine is shut down.
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });
        pass(DEADLINE / 2).await;
        assert!(!shutdown.is_finished());
        ask(&shop, &Ask::pay("k3"))
            .await
            .is_problem(503, "overloaded");
        ask(&shop, &Ask::pay("k1"))
            .await
            .is_problem(503, "overloaded");
        till.open();

        // Then all of them end as if nothing were, and are counted.
        first.await.unwrap().is_charge(1);
        waiter.await.unwrap().is_replay_of_charge(1);
        let report = shutdown.await.unwrap();
        assert_eq!(
            (report.drained, report.unknown, report.unconfirmed),
            (2, 0, 0)
        );
        let shop = face.shop(&other, &till);
        ask(&shop, &Ask::pay("k2")).await.is_replay_of_charge(2);
        assert_eq!(till.starts(), 2);
    });
}

#[test]
fn what_still_runs_at_the_deadline_is_marked_unknown_and_those_who_wait_are_sent_away() {
    both(async |face| {
        let till = Till::new();
        let (engine, other) = two(Policy::new());
        let (shop, other) = (face.shop(&engine, &till), face.shop(&other, &till));
        till.hold();
        let first: Vec<_> = (1..=3)
            .map(|n| asking(&shop, &Ask::pay(&format!("k{n}"))))
            .collect();
        till.started(3).await;
        let waiter = asking(&shop, &Ask::pay("k1"));
        settle().await;
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });
        settle().await;
        till.release(1);
        first.into_iter().next().unwrap().await.unwrap();
        waiter.await.unwrap().is_replay_of_charge(1);
        let waiter = asking(&other, &Ask::pay("k2"));
        pass(DEADLINE + Duration::from_millis(1)).await;

        // Then one is drained, two are unknown, and everybody elsewhere is told at once.
        let report = shutdown.await.unwrap();
        assert_eq!(
            (report.drained, report.unknown, report.unconfirmed),
            (1, 2, 0)
        );
        waiter.await.unwrap().is_problem(409, "outcome_unknown");
        ask(&other, &Ask::pay("k3"))
            .await
            .is_problem(409, "outcome_unknown");

        // And a handler that completes after all, completes.
        till.open();
        settle().await;
        for n in [2, 3] {
            ask(&other, &Ask::pay(&format!("k{n}")))
                .await
                .is_replay_of_charge(n);
        }
        assert_eq!(till.starts(), 3);
    });
}

#[test]
fn a_waiter_that_is_left_at_the_deadline_is_sent_away() {
    both(async |face| {
        let till = Till::new();
        let (here, there) = two(Policy::new());
        let (one, other) = (face.shop(&here, &till), face.shop(&there, &till));
        till.hold();
        let first = asking(&one, &Ask::pay("k"));
        till.started(1).await;

        // Given a duplicate of another process's execution, in an engine that ends.
        let waiter = asking(&other, &Ask::pay("k"));
        settle().await;
        let report = there.shutdown(DEADLINE).await;
        assert_eq!(
            (report.drained, report.unknown),
            (0, 0),
            "waiting is not work"
        );
        waiter.await.unwrap().is_problem(503, "overloaded");
        till.open();
        first.await.unwrap().is_charge(1);
    });
}

#[test]
fn with_retry_another_process_takes_over_what_was_marked() {
    both(async |face| {
        let till = Till::new();
        let (engine, other) = two(Policy::new().on_crash(OnCrash::Retry));
        let (shop, other) = (face.shop(&engine, &till), face.shop(&other, &till));
        till.hold();
        let old = asking(&shop, &Ask::pay("k"));
        till.started(1).await;
        let report = engine.shutdown(Duration::ZERO).await;
        assert_eq!((report.drained, report.unknown), (0, 1));
        till.release(2);
        ask(&other, &Ask::pay("k")).await.is_charge(2);
        till.open();
        old.await.unwrap().is_replay_of_charge(2);
        assert_eq!(till.attempts(), [1, 2]);
    });
}

#[test]
fn a_heartbeat_does_not_undo_the_mark() {
    both(async |face| {
        // Given an execution that goes on after the shutdown's deadline.
        let till = Till::new();
        let (engine, other) = two(Policy::new());
        let (shop, other) = (face.shop(&engine, &till), face.shop(&other, &till));
        till.hold();
        let _first = asking(&shop, &Ask::pay("k"));
        till.started(1).await;
        let report = engine.shutdown(DEADLINE).await;
        assert_eq!(report.unknown, 1);

        // When its next heartbeat would be due, then the key stays marked.
        for _ in 0..20 {
            pass(Duration::from_secs(3)).await;
            ask(&other, &Ask::pay("k"))
                .await
                .is_problem(409, "outcome_unknown");
        }
        assert!(till.execution(1).lease_lost());
    });
}

#[test]
fn a_store_that_is_down_at_the_deadline_does_not_hold_the_shutdown() {
    both(async |face| {
        for outage in [Fault::Down, Fault::Silent] {
            let (till, store) = (Till::new(), Faulty::new());
            let engine = Idempotency::builder().store(store.clone()).build().unwrap();
            let shop = face.shop(&engine, &till);
            till.hold();
            let _asking: Vec<_> = (0..100)
                .map(|n| asking(&shop, &Ask::pay(&format!("k{n}"))))
                .collect();
            till.started(100).await;
            store.always(Verb::Abandon, outage);
            let ending = engine.clone();
            let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });
            pass(DEADLINE + Duration::from_secs(10)).await;
            assert!(shutdown.is_finished());
            let report = shutdown.await.unwrap();
            assert_eq!(
                (report.drained, report.unknown, report.unconfirmed),
                (0, 0, 100)
            );
        }
    });
}

#[test]
fn a_shutdown_may_be_given_all_the_time_in_the_world() {
    both(async |face| {
        let till = Till::new();
        let engine = Idempotency::builder().build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &Ask::pay("k"));
        till.started(1).await;
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(Duration::MAX).await });
        pass(Duration::from_secs(60)).await;
        assert!(!shutdown.is_finished());
        till.open();
        first.await.unwrap().is_charge(1);
        assert_eq!(shutdown.await.unwrap().drained, 1);
    });
}

#[test]
fn a_shutdown_that_is_dropped_half_way_leaves_the_engine_closed() {
    both(async |face| {
        let till = Till::new();
        let engine = Idempotency::builder().build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &Ask::pay("k"));
        till.started(1).await;
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });
        settle().await;
        shutdown.abort();
        settle().await;
        ask(&shop, &Ask::pay("new"))
            .await
            .is_problem(503, "overloaded");
        till.open();
        first.await.unwrap().is_charge(1);
        let report = engine.shutdown(DEADLINE).await;
        assert_eq!((report.drained, report.unknown), (0, 0));
    });
}

#[test]
fn a_stream_under_way_is_part_of_its_execution() {
    both(async |face| {
        let (feed, body) = frames();
        let body = std::sync::Mutex::new(Some(body));
        let till = Till::answering(move |n| match n {
            1 => body.lock().unwrap().take().unwrap().into_response(),
            _ => stream(["x"]).into_response(),
        });
        let engine = Idempotency::builder().build().unwrap();
        let shop = face.shop(&engine, &till);
        let first = asking(&shop, &Ask::pay("k"));
        till.started(1).await;
        settle().await;
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });
        pass(DEADLINE / 2).await;
        assert!(!shutdown.is_finished());
        drop(feed);
        assert_eq!(first.await.unwrap().status, 200);
        assert_eq!(shutdown.await.unwrap().drained, 1);
    });
}

#[test]
fn a_client_that_sends_its_body_slowly_is_nothing_to_wait_for() {
    by_hand(async {
        let till = Till::new();
        let engine = Idempotency::builder().build().unwrap();
        let shop = Face::Attribute.shop(&engine, &till);
        let (feed, body) = frames();
        let slow = tower::ServiceExt::oneshot(shop, Ask::pay("k").request_with(body));
        let slow = tokio::spawn(slow);
        settle().await;
        let report = engine.shutdown(DEADLINE).await;
        assert_eq!((report.drained, report.unknown), (0, 0));
        drop(feed);
        assert_eq!(slow.await.unwrap().unwrap().status(), 503);
        assert_eq!(till.starts(), 0);
    });
}

/// Learns that nothing was executed, as soon as there is a permit.
async fn inquire(crash: Crash) -> Recovery {
    let desk: &Arc<Semaphore> = crash.request().extensions().get().unwrap();
    desk.acquire().await.unwrap().forget();
    Recovery::NotExecuted
}

#[test]
fn a_claim_that_is_acknowledged_after_the_deadline_starts_nothing() {
    both(async |face| {
        let recover = OnCrash::Recover(|crash| Box::pin(inquire(crash)));
        for (on_crash, vanished) in [
            (OnCrash::Refuse, false),
            (OnCrash::Retry, false),
            (OnCrash::Retry, true),
            (recover, true),
        ] {
            for fault in [Fault::Late, Fault::LateReply] {
                // Given a claim, of a new key or of a vanished execution's, that is under way.
                let (till, records) = (Till::new(), MemoryStore::new());
                let store = Faulty::over(records.clone());
                let policy = Policy::new().wait(false).on_crash(on_crash);
                let engine = Idempotency::builder().policy(policy);
                let engine = engine.store(store.clone()).build().unwrap();
                let heir = Idempotency::builder().policy(policy).store(records);
                let desk = Arc::new(Semaphore::new(9));
                let shop = face.shop(&engine, &till).layer(Extension(desk.clone()));
                let heir = face.shop(&heir.build().unwrap(), &till);
                let heir = heir.layer(Extension(desk.clone()));
                if vanished {
                    till.hold();
                    crash(&heir, &Ask::pay("k"), &till).await;
                    till.open();
                    pass(Duration::from_secs(31)).await;
                }
                if matches!(on_crash, OnCrash::Recover(_)) {
                    // The first acquire shows the crash, the second takes over.
                    store.next(Verb::Acquire, Fault::None);
                }
                let permits = Arc::new(Semaphore::new(0));
                store.next(Verb::Acquire, fault(permits.clone()));
                let request = asking(&shop, &Ask::pay("k"));
                settle().await;

                // When the deadline passes before the store has acknowledged it.
                let report = engine.shutdown(Duration::from_millis(1)).await;
                permits.add_permits(1);

                // Then nothing was executed, neither counted nor started.
                let answer = request.await.unwrap();
                answer.is_problem(503, "overloaded");
                assert!(answer.headers.contains_key("retry-after"));
                assert_eq!((report.drained, report.unconfirmed), (0, 0));
                let before = usize::from(vanished);
                assert_eq!(till.starts(), before);
                assert_eq!(desk.available_permits(), 9, "nobody asks any more");

                // And the next process executes at once.
                ask(&heir, &Ask::pay("k")).await.is_charge(before + 1);
            }
        }
    });
}

#[test]
fn a_waiter_whose_look_is_acknowledged_after_the_deadline_starts_nothing() {
    both(async |face| {
        // Given a duplicate whose look gets a key that was given back, and the store's reply is under way.
        let (till, records) = (Till::refusing_first(429), MemoryStore::new());
        let store = Faulty::over(records.clone());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let heir = Idempotency::builder().store(records).build().unwrap();
        let (shop, heir) = (face.shop(&engine, &till), face.shop(&heir, &till));
        till.hold();
        let first = asking(&shop, &Ask::pay("k"));
        till.started(1).await;
        let waiter = asking(&shop, &Ask::pay("k"));
        settle().await;
        let looks = store.calls(Verb::Acquire);
        let permits = Arc::new(Semaphore::new(0));
        store.next(Verb::Acquire, Fault::LateReply(permits.clone()));
        till.open();
        assert_eq!(first.await.unwrap().status, 429);
        settle().await;
        assert_eq!(store.calls(Verb::Acquire), looks + 1, "it looks");

        // When the deadline passes before it knows.
        let report = engine.shutdown(Duration::from_millis(1)).await;
        assert_eq!((report.drained, report.unknown), (0, 0));
        permits.add_permits(1);

        // Then it executes nothing, and the next process does.
        waiter.await.unwrap().is_problem(503, "overloaded");
        assert_eq!(till.starts(), 1);
        ask(&heir, &Ask::pay("k")).await.is_charge(2);
    });
}

#[test]
fn a_recovery_function_that_still_asks_at_the_deadline_starts_nothing() {
    both(async |face| {
        for heir_is_faster in [true, false] {
            // Given a retry that asks what became of an execution that vanished.
            let till = Till::new();
            let (here, heir) = two(Policy::new()
                .wait(false)
                .on_crash(OnCrash::Recover(|crash| Box::pin(inquire(crash)))));
            let desk = Arc::new(Semaphore::new(0));
            let shop = face.shop(&here, &till).layer(Extension(desk.clone()));
            let told = Arc::new(Semaphore::new(9));
            let heir = face.shop(&heir, &till).layer(Extension(told));
            till.hold();
            crash(&heir, &Ask::pay("k"), &till).await;
            till.open();
            pass(Duration::from_secs(31)).await;
            let retry = asking(&shop, &Ask::pay("k"));
            settle().await;

            // When the deadline passes before it knows, and then it learns that nothing was executed.
            let report = here.shutdown(Duration::from_millis(1)).await;
            assert_eq!((report.drained, report.unknown), (0, 1));
            if heir_is_faster {
                ask(&heir, &Ask::pay("k")).await.is_charge(2);
            }
            desk.add_permits(1);
            let answer = retry.await.unwrap();

            // Then only the next process executes.
            if heir_is_faster {
                answer.is_replay_of_charge(2);
                ask(&heir, &Ask::pay("k")).await.is_replay_of_charge(2);
            } else {
                answer.is_problem(503, "overloaded");
                ask(&heir, &Ask::pay("k")).await.is_charge(2);
            }
            assert_eq!(till.starts(), 2);
        }
    });
}

#[test]
fn under_load_every_execution_is_either_drained_or_never_started() {
    real(async {
        // Given a server under load of clients that also leave.
        let till = Till::serving(|n, _| {
            Box::pin(async move {
                moment(3000).await;
                (http::StatusCode::CREATED, format!("charge {n}")).into_response()
            })
        });
        let (engine, heir) = two(Policy::new());
        let server = Arc::new(Server::start(Face::Attribute.shop(&engine, &till)).await);
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..16)
            .map(|client| {
                let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut sent = Vec::new();
                    for n in 0.. {
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                        let asked = Ask::pay(&format!("k{client}-{n}"));
                        if n % 3 == 0 {
                            let mut conn = Conn::open(server.address).await;
                            conn.send(&asked.wire()).await;
                            moment(2000).await;
                            conn.close();
                        } else {
                            let answer = server.ask(&asked).await;
                            assert!([201, 503].contains(&answer.status.as_u16()), "{answer:?}");
                        }
                        sent.push(asked);
                    }
                    sent
                })
            })
            .collect();
        till.started(100).await;

        // When the engine is shut down in the middle of it.
        let report = engine.shutdown(Duration::from_secs(30)).await;
        let (starts, effects) = (till.starts(), till.effects());

        // Then nothing runs any more, and nothing starts any more.
        assert_eq!((report.unknown, report.unconfirmed), (0, 0));
        assert_eq!(starts, effects);
        moment(20_000).await;
        assert_eq!((till.starts(), detached(&engine)), (starts, 0));
        stop.store(true, Ordering::SeqCst);

        // And the next process replays what was executed, and executes what was not.
        let next = Face::Attribute.shop(&heir, &till);
        let mut replayed = 0;
        for client in clients {
            for asked in client.await.unwrap() {
                let answer = ask(&next, &asked).await;
                assert_eq!(answer.status, 201, "{answer:?}");
                replayed += usize::from(answer.replayed());
            }
        }
        assert_eq!(replayed, starts);
    });
}
