//! Shutting an engine down (DESIGN.md, section 4; invariants I10, L3).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::response::IntoResponse;
use idempotent_runtime::{
    Idempotency, OnCrash, Policy,
    store::{LONGEST_DELAY, Store},
};
use tokio::{sync::Semaphore, time::Instant};

use crate::support::{
    Adapter, Conn, CountingHandler, Fault, FaultyStore, Operation, Server, TestRequest, advance,
    detached, frames, in_real_time, random_pause, run_ready_tasks, send, send_in_task, stream,
    two_engines, wait_until, waiters, with_each_adapter, with_paused_clock,
};

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn an_idle_engine_shuts_down_at_once_and_stays_closed() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_charge(1);
        for _ in 0..2 {
            let report = engine.shutdown(DEADLINE).await;
            assert_eq!(
                (report.drained, report.unknown, report.unconfirmed),
                (0, 0, 0)
            );
        }

        // Then new executions and replays are refused; requests without a key execute.
        for key in ["k", "new"] {
            let answer = send(&app, &TestRequest::payment(key)).await;
            answer.assert_problem(503, "overloaded");
            assert!(answer.headers.contains_key("retry-after"));
        }
        send(&app, &TestRequest::post("/pay"))
            .await
            .assert_charge(2);
    });
}

#[test]
fn a_shutdown_waits_for_executions_and_their_waiters() {
    with_each_adapter(async |adapter| {
        // Given an execution with a client, a detached one, and a waiter.
        let handler = CountingHandler::new();
        let (engine, other) = two_engines(&Policy::new());
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::payment("k1"));
        handler.started(1).await;
        let left = send_in_task(&app, &TestRequest::payment("k2"));
        handler.started(2).await;
        left.abort();
        let waiter = send_in_task(&app, &TestRequest::payment("k1"));
        run_ready_tasks().await;
        assert_eq!((detached(&engine), waiters(&engine)), (1, 1));

        // When the engine is shut down.
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });
        advance(DEADLINE / 2).await;
        assert!(!shutdown.is_finished());
        send(&app, &TestRequest::payment("k3"))
            .await
            .assert_problem(503, "overloaded");
        send(&app, &TestRequest::payment("k1"))
            .await
            .assert_problem(503, "overloaded");
        handler.open_gate();

        // Then all of them end as usual, and both executions are counted.
        first.await.unwrap().assert_charge(1);
        waiter.await.unwrap().assert_replay_of_charge(1);
        let report = shutdown.await.unwrap();
        assert_eq!(
            (report.drained, report.unknown, report.unconfirmed),
            (2, 0, 0)
        );
        let app = adapter.app(&other, &handler);
        send(&app, &TestRequest::payment("k2"))
            .await
            .assert_replay_of_charge(2);
        assert_eq!(handler.starts(), 2);
    });
}

#[test]
fn executions_in_flight_at_the_deadline_are_marked_unknown() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let (engine, other) = two_engines(&Policy::new());
        let (app, other) = (
            adapter.app(&engine, &handler),
            adapter.app(&other, &handler),
        );
        handler.close_gate();
        let first: Vec<_> = (1..=3)
            .map(|n| send_in_task(&app, &TestRequest::payment(&format!("k{n}"))))
            .collect();
        handler.started(3).await;
        let waiter = send_in_task(&app, &TestRequest::payment("k1"));
        run_ready_tasks().await;
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });
        run_ready_tasks().await;
        handler.let_through(1);
        first.into_iter().next().unwrap().await.unwrap();
        waiter.await.unwrap().assert_replay_of_charge(1);
        let waiter = send_in_task(&other, &TestRequest::payment("k2"));
        advance(DEADLINE + Duration::from_millis(1)).await;

        // Then one is drained, two are unknown, and requests in other processes get `outcome_unknown` at once.
        let report = shutdown.await.unwrap();
        assert_eq!(
            (report.drained, report.unknown, report.unconfirmed),
            (1, 2, 0)
        );
        waiter.await.unwrap().assert_problem(409, "outcome_unknown");
        send(&other, &TestRequest::payment("k3"))
            .await
            .assert_problem(409, "outcome_unknown");

        // And a handler that ends after all has its outcome stored.
        handler.open_gate();
        run_ready_tasks().await;
        for n in [2, 3] {
            send(&other, &TestRequest::payment(&format!("k{n}")))
                .await
                .assert_replay_of_charge(n);
        }
        assert_eq!(handler.starts(), 3);
    });
}

#[test]
fn a_waiter_that_still_waits_at_the_deadline_gets_overloaded() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let (here, there) = two_engines(&Policy::new());
        let (one, other) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        let first = send_in_task(&one, &TestRequest::payment("k"));
        handler.started(1).await;

        // When the engine of a waiter for another process's execution shuts down, then the waiter is not counted.
        let waiter = send_in_task(&other, &TestRequest::payment("k"));
        run_ready_tasks().await;
        let report = there.shutdown(DEADLINE).await;
        assert_eq!(
            (report.drained, report.unknown),
            (0, 0),
            "a waiter is not an execution"
        );
        waiter.await.unwrap().assert_problem(503, "overloaded");
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
    });
}

#[test]
fn with_retry_another_process_takes_over_an_execution_marked_unknown() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let (engine, other) = two_engines(&Policy::new().on_crash(OnCrash::Retry));
        let (app, other) = (
            adapter.app(&engine, &handler),
            adapter.app(&other, &handler),
        );
        handler.close_gate();
        let old = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        let report = engine.shutdown(Duration::ZERO).await;
        assert_eq!((report.drained, report.unknown), (0, 1));
        handler.let_through(2);
        send(&other, &TestRequest::payment("k"))
            .await
            .assert_charge(2);
        handler.open_gate();
        old.await.unwrap().assert_replay_of_charge(2);
        assert_eq!(handler.attempts(), [1, 2]);
    });
}

#[test]
fn a_heartbeat_does_not_undo_the_mark() {
    with_each_adapter(async |adapter| {
        // Given an execution that goes on after the shutdown's deadline.
        let handler = CountingHandler::new();
        let (engine, other) = two_engines(&Policy::new());
        let (app, other) = (
            adapter.app(&engine, &handler),
            adapter.app(&other, &handler),
        );
        handler.close_gate();
        let _first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        let report = engine.shutdown(DEADLINE).await;
        assert_eq!(report.unknown, 1);

        // When its next heartbeats would be due, then the key stays marked.
        for _ in 0..20 {
            advance(Duration::from_secs(3)).await;
            send(&other, &TestRequest::payment("k"))
                .await
                .assert_problem(409, "outcome_unknown");
        }
        assert!(handler.execution(1).lease_lost());
    });
}

#[test]
fn an_unreachable_store_does_not_delay_the_shutdown() {
    with_each_adapter(async |adapter| {
        for outage in [Fault::Unreachable, Fault::Hang] {
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let engine = Idempotency::builder().store(store.clone()).build().unwrap();
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            let _requests: Vec<_> = (0..2000)
                .map(|n| send_in_task(&app, &TestRequest::payment(&format!("k{n}"))))
                .collect();
            handler.started(2000).await;
            store.fail_always(Operation::Abandon, outage);
            let ending = engine.clone();
            let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });

            run_ready_tasks().await;

            // However many there are, they are marked at once: one store time-out (2 s) after the deadline is the end,
            // give or take the milliseconds to which the timers round.
            advance(DEADLINE + Duration::from_millis(2010)).await;
            assert!(shutdown.is_finished());
            let report = shutdown.await.unwrap();
            assert_eq!(
                (report.drained, report.unknown, report.unconfirmed),
                (0, 0, 2000)
            );
        }
    });
}

#[test]
fn a_shutdown_gives_withdrawals_what_is_left_of_its_deadline() {
    with_each_adapter(async |adapter| {
        for (minutes, store_is_back) in [(1, false), (1, true), (60, true)] {
            // Given a claim in doubt, which is being withdrawn.
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let engine = Idempotency::builder().store(store.clone()).build().unwrap();
            let app = adapter.app(&engine, &handler);
            let late = Arc::new(Semaphore::new(0));
            store.fail_next(Operation::Acquire, Fault::Late(Arc::clone(&late)));
            store.fail_next(Operation::Acquire, Fault::Unreachable);
            store.fail_always(Operation::Release, Fault::Unreachable);
            send(&app, &TestRequest::payment("k"))
                .await
                .assert_problem(503, "store_unavailable");
            let deadline = Duration::from_secs(60 * minutes);
            let (ending, since) = (engine.clone(), Instant::now());
            let shutdown = tokio::spawn(async move { ending.shutdown(deadline).await });
            run_ready_tasks().await;

            // When the late acquire arrives before the deadline.
            advance(Duration::from_secs(20)).await;
            assert!(!shutdown.is_finished(), "it waits");
            late.add_permits(1);
            if store_is_back {
                store.heal();
            }
            while !shutdown.is_finished() {
                advance(Duration::from_secs(1)).await;
            }

            // Then it was withdrawn, and the shutdown says what it left undone, at its deadline.
            let report = shutdown.await.unwrap();
            let withdrawn = deadline > LONGEST_DELAY;
            assert_eq!(report.withdrawing, usize::from(!withdrawn));
            let took = since.elapsed();
            assert!(took <= deadline + Duration::from_secs(1), "{took:?}");
            assert!(!withdrawn || took < LONGEST_DELAY * 2, "{took:?}");
            let key = store.keys()[0];
            let blocked = store.get(&key).await.unwrap().is_some();
            assert_eq!(blocked, !store_is_back);
        }
    });
}

#[test]
fn a_shutdown_may_have_the_longest_possible_deadline() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(Duration::MAX).await });
        advance(Duration::from_secs(60)).await;
        assert!(!shutdown.is_finished());
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        assert_eq!(shutdown.await.unwrap().drained, 1);
    });
}

#[test]
fn a_shutdown_whose_future_is_dropped_leaves_the_engine_closed() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });
        run_ready_tasks().await;
        shutdown.abort();
        run_ready_tasks().await;
        send(&app, &TestRequest::payment("new"))
            .await
            .assert_problem(503, "overloaded");
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        let report = engine.shutdown(DEADLINE).await;
        assert_eq!((report.drained, report.unknown), (0, 0));
    });
}

#[test]
fn a_shutdown_waits_for_a_response_that_is_still_streaming() {
    with_each_adapter(async |adapter| {
        let (feed, body) = frames();
        let body = std::sync::Mutex::new(Some(body));
        let handler = CountingHandler::responding(move |n| match n {
            1 => body.lock().unwrap().take().unwrap().into_response(),
            _ => stream(["x"]).into_response(),
        });
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        let first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        run_ready_tasks().await;
        let ending = engine.clone();
        let shutdown = tokio::spawn(async move { ending.shutdown(DEADLINE).await });
        advance(DEADLINE / 2).await;
        assert!(!shutdown.is_finished());
        drop(feed);
        assert_eq!(first.await.unwrap().status, 200);
        assert_eq!(shutdown.await.unwrap().drained, 1);
    });
}

#[test]
fn a_shutdown_does_not_wait_for_a_request_body_that_is_still_arriving() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = Adapter::Attribute.app(&engine, &handler);
        let (feed, body) = frames();
        let slow = tower::ServiceExt::oneshot(app, TestRequest::payment("k").request_with(body));
        let slow = tokio::spawn(slow);
        run_ready_tasks().await;
        let report = engine.shutdown(DEADLINE).await;
        assert_eq!((report.drained, report.unknown), (0, 0));
        drop(feed);
        assert_eq!(slow.await.unwrap().unwrap().status(), 503);
        assert_eq!(handler.starts(), 0);
    });
}

#[test]
fn under_load_every_execution_is_either_drained_or_never_started() {
    in_real_time(async {
        // Given a server under load, with clients that also disconnect.
        let handler = CountingHandler::running(|n, _| {
            Box::pin(async move {
                random_pause(3000).await;
                (http::StatusCode::CREATED, format!("charge {n}")).into_response()
            })
        });
        let (engine, other) = two_engines(&Policy::new());
        let server = Arc::new(Server::start(Adapter::Attribute.app(&engine, &handler)).await);
        let stop = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..16)
            .map(|client| {
                let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
                let refused = Arc::clone(&refused);
                tokio::spawn(async move {
                    let mut sent = Vec::new();
                    for n in 0.. {
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                        let request = TestRequest::payment(&format!("k{client}-{n}"));
                        if n % 3 == 0 {
                            let mut conn = Conn::open(server.address).await;
                            conn.send(&request.wire()).await;
                            random_pause(2000).await;
                            conn.close();
                        } else {
                            let answer = server.send(&request).await;
                            assert!([201, 503].contains(&answer.status.as_u16()), "{answer:?}");
                            refused.fetch_add(usize::from(answer.status == 503), Ordering::SeqCst);
                        }
                        sent.push(request);
                    }
                    sent
                })
            })
            .collect();
        handler.started(100).await;

        // When the engine is shut down in the middle of it.
        let report = engine.shutdown(Duration::from_secs(30)).await;
        let (starts, effects, detached) = (handler.starts(), handler.effects(), detached(&engine));

        // Then nothing is in flight any more once it has returned.
        assert_eq!((report.unknown, report.unconfirmed), (0, 0));
        assert_eq!((effects, detached), (starts, 0));

        // And nothing starts any more, although clients go on sending.
        wait_until(|| refused.load(Ordering::SeqCst) >= 50).await;
        stop.store(true, Ordering::SeqCst);
        let mut sent = Vec::new();
        for client in clients {
            sent.extend(client.await.unwrap());
        }
        assert_eq!(handler.starts(), starts);

        // And the next process replays what was executed, and executes what was not.
        let next = Adapter::Attribute.app(&other, &handler);
        let mut replayed = 0;
        for request in sent {
            let answer = send(&next, &request).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            replayed += usize::from(answer.replayed());
        }
        assert_eq!(replayed, starts);
    });
}
