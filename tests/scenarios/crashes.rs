//! Executions whose process crashes half-way (DESIGN.md, sections 1 and 9; invariants I2, I3, L2).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response};
use idempotent_runtime::{
    Crash, Idempotency, IdempotencyKey, MemoryStore, OnCrash, Policy, Recovery, Resolution,
    ResolveError, store::RecordState,
};

use crate::support::{
    Adapter, CountingHandler, FaultyStore, Server, TestRequest, advance, crash, in_real_time,
    run_ready_tasks, send, send_in_task, wait_until, waiters, with_each_adapter, with_paused_clock,
};

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

/// Two engines on one store, as in two processes.
fn two(policy: Policy) -> (Idempotency, Idempotency) {
    let store = MemoryStore::new();
    let engine = || {
        let engine = Idempotency::builder()
            .store(store.clone())
            .policy(policy.clone());
        engine.build().unwrap()
    };
    (engine(), engine())
}

#[test]
fn a_crashed_execution_leaves_an_unknown_outcome_until_the_key_expires() {
    with_each_adapter(async |adapter| {
        // Given an execution whose process crashed, and duplicates that wait in another process.
        let handler = CountingHandler::new();
        let (here, there) = two(Policy::new()
            .ttl(Duration::from_secs(3600))
            .wait_timeout(LEASE * 3));
        let (here, app) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        crash(&here, &payment(), &handler).await;
        handler.open_gate();
        let waiting: Vec<_> = (0..5).map(|_| send_in_task(&app, &payment())).collect();
        run_ready_tasks().await;
        assert_eq!(waiters(&there), 5);

        // When the lease lapses.
        advance(LEASE * 14 / 15).await;
        assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
        advance(Duration::from_secs(3)).await;

        // Then all of them get `outcome_unknown`, and so does every later request until the record expires.
        for waiter in waiting {
            waiter.await.unwrap().assert_problem(409, "outcome_unknown");
        }
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        advance(Duration::from_secs(3500)).await;
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        assert_eq!(handler.starts(), 1);

        // And only then the key executes again.
        advance(Duration::from_secs(120)).await;
        send(&app, &payment()).await.assert_charge(2);
    });
}

#[test]
fn with_retry_one_waiter_executes_again_and_the_others_replay() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let (here, there) = two(Policy::new()
            .on_crash(OnCrash::Retry)
            .wait_timeout(LEASE * 3));
        let (here, app) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        crash(&here, &payment(), &handler).await;
        handler.open_gate();
        let waiting: Vec<_> = (0..5).map(|_| send_in_task(&app, &payment())).collect();

        // When the crashed execution's lease lapses.
        advance(LEASE + Duration::from_secs(1)).await;

        // Then one waiter executes as the next attempt, and all get its outcome.
        let mut first_hand = 0;
        for waiter in waiting {
            let answer = waiter.await.unwrap();
            assert_eq!(answer.text(), "charge 2");
            first_hand += usize::from(!answer.replayed());
        }
        assert_eq!((first_hand, handler.attempts()), (1, vec![1, 2]));
        send(&app, &payment()).await.assert_replay_of_charge(2);
    });
}

#[test]
fn attempts_rise_by_one_with_each_crash() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().policy(Policy::new().on_crash(OnCrash::Retry));
        let app = adapter.app(&engine.build().unwrap(), &handler);
        handler.close_gate();
        for _ in 0..4 {
            crash(&app, &payment(), &handler).await;
            advance(LEASE + Duration::from_secs(1)).await;
        }
        handler.open_gate();
        send(&app, &payment()).await.assert_charge(5);
        assert_eq!(handler.attempts(), [1, 2, 3, 4, 5]);
        let keys: Vec<_> = (1..=5)
            .map(|n| handler.execution(n).downstream_key("ledger"))
            .collect();
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    });
}

#[test]
fn a_key_of_a_crashed_execution_is_a_mismatch_for_another_request() {
    with_each_adapter(async |adapter| {
        for policy in [Policy::new(), Policy::new().on_crash(OnCrash::Retry)] {
            let handler = CountingHandler::new();
            let engine = Idempotency::builder().policy(policy).build().unwrap();
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            crash(&app, &payment(), &handler).await;
            handler.open_gate();
            advance(LEASE * 2).await;
            let other = send(&app, &payment().body("{}")).await;
            other.assert_problem(409, "mismatch");
            assert_eq!(handler.starts(), 1);
        }
    });
}

static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Takes its verdict from the retry's header; a real function would ask the payment provider.
fn recover(crash: &Crash) -> Recovery {
    ASKED.fetch_add(1, Ordering::SeqCst);
    assert_eq!(crash.key().expose(), "k");
    assert_eq!(crash.request().body(), &payment().body);
    let verdict = &crash.request().headers()["x-verdict"];
    match verdict.to_str().unwrap() {
        "completed" => {
            let body = format!("found {} {}", crash.attempt(), crash.downstream_key("bank"));
            Recovery::Completed(Response::builder().status(201).body(body.into()).unwrap())
        }
        "not executed" => Recovery::NotExecuted,
        "unknown" => Recovery::StillUnknown,
        _ => panic!("a panic of the scenario"),
    }
}

fn recovering() -> Policy {
    Policy::new().on_crash(OnCrash::Recover(|crash| {
        Box::pin(async move { recover(&crash) })
    }))
}

fn verdict(verdict: &str) -> TestRequest {
    payment().header("x-verdict", verdict)
}

#[test]
fn a_recovery_function_that_finds_the_effect_supplies_its_response() {
    with_each_adapter(async |adapter| {
        // Given a crashed execution.
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().policy(recovering()).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        crash(&app, &payment(), &handler).await;
        let bank = handler.execution(1).downstream_key("bank");
        handler.open_gate();
        advance(LEASE * 2).await;

        // When the recovery function finds that the effect happened.
        let found = send(&app, &verdict("completed")).await;

        // Then its response is the stored outcome.
        let expected = format!("found 1 {bank}");
        assert_eq!(
            (found.status.as_u16(), found.text()),
            (201, expected.as_str())
        );
        let again = send(&app, &verdict("not executed")).await;
        assert_eq!(again.text(), expected);
        assert!(again.replayed());
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_recovery_function_that_finds_no_effect_lets_the_handler_execute() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().policy(recovering()).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        crash(&app, &payment(), &handler).await;
        handler.open_gate();
        advance(LEASE * 2).await;
        send(&app, &verdict("not executed")).await.assert_charge(2);
        send(&app, &verdict("not executed"))
            .await
            .assert_replay_of_charge(2);
        assert_eq!(handler.attempts(), [1, 2]);
    });
}

#[test]
fn a_recovery_function_that_does_not_know_or_panics_is_called_again_by_the_next_retry() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().policy(recovering()).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        crash(&app, &payment(), &handler).await;
        handler.open_gate();
        advance(LEASE * 2).await;
        for answer in ["unknown", "panic", "unknown"] {
            let answer = send(&app, &verdict(answer)).await;
            answer.assert_problem(409, "outcome_unknown");
        }
        assert_eq!(handler.starts(), 1, "only the crashed execution started");
        send(&app, &verdict("completed")).await;
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn only_one_recovery_function_runs_at_a_time() {
    with_paused_clock(async {
        static ASKING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        async fn slow(_: Crash) -> Recovery {
            let now = ASKING.fetch_add(1, Ordering::SeqCst) + 1;
            MOST.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(45)).await;
            ASKING.fetch_sub(1, Ordering::SeqCst);
            Recovery::Completed(Response::new(Bytes::from_static(b"found")))
        }
        // Given a recovery function that takes longer than a lease.
        let handler = CountingHandler::new();
        let (here, there) = two(Policy::new()
            .on_crash(OnCrash::Recover(|crash| Box::pin(slow(crash))))
            .wait_timeout(LEASE * 4));
        let (here, there) = (
            Adapter::Attribute.app(&here, &handler),
            Adapter::Layer.app(&there, &handler),
        );
        handler.close_gate();
        crash(&here, &payment(), &handler).await;
        handler.open_gate();
        advance(LEASE * 2).await;

        // When many retries arrive in both processes.
        let requests: Vec<_> = (0..10)
            .map(|n| send_in_task(if n % 2 == 0 { &here } else { &there }, &payment()))
            .collect();
        advance(Duration::from_secs(50)).await;

        // Then one called the function, under a lease that was renewed, and all get the outcome it found.
        for answer in requests {
            assert_eq!(answer.await.unwrap().text(), "found");
        }
        assert_eq!(MOST.load(Ordering::SeqCst), 1);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_recovery_whose_process_crashes_is_started_again_by_the_next_retry() {
    with_each_adapter(async |adapter| {
        async fn never(_: Crash) -> Recovery {
            std::future::pending().await
        }
        let handler = CountingHandler::new();
        let (store, hangs) = (
            MemoryStore::new(),
            OnCrash::Recover(|crash| Box::pin(never(crash))),
        );
        let engine = |policy| {
            let engine = Idempotency::builder().store(store.clone()).policy(policy);
            engine.build().unwrap()
        };
        let hanging = adapter.app(&engine(Policy::new().on_crash(hangs)), &handler);
        handler.close_gate();
        crash(&hanging, &payment(), &handler).await;
        handler.open_gate();
        advance(LEASE * 2).await;

        // When the process that runs the recovery function crashes too.
        let mut request = Box::pin(tower::ServiceExt::oneshot(hanging, payment().request()));
        for _ in 0..10 {
            assert!(crate::support::poll_once(request.as_mut()).await.is_none());
        }
        std::mem::forget(request);
        advance(LEASE * 2).await;

        // Then the next retry calls the function, with the number of the last attempt, which was the recovery.
        let app = adapter.app(&engine(recovering()), &handler);
        let found = send(&app, &verdict("completed")).await;
        assert!(found.text().starts_with("found 2 "), "{found:?}");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn an_operator_can_resolve_an_unknown_outcome() {
    with_each_adapter(async |adapter| {
        for executed in [true, false] {
            // Given a crashed execution.
            let handler = CountingHandler::new();
            let engine = Idempotency::builder().build().unwrap();
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            crash(&app, &payment(), &handler).await;
            handler.open_gate();
            let key = IdempotencyKey::new("k").unwrap();
            let key = engine.store_key("POST /pay", None, &key);
            let resolution = || {
                let mut response = Response::new(Bytes::from_static(b"by hand"));
                let header = HeaderValue::from_static("1");
                response.headers_mut().insert("x-checked", header);
                if executed {
                    Resolution::Completed(response)
                } else {
                    Resolution::NotExecuted
                }
            };

            // When an operator resolves it: not before the lease lapsed, and not twice.
            let early = engine.resolve(&key, resolution()).await;
            assert!(matches!(early, Err(ResolveError::InFlight)), "{early:?}");
            advance(LEASE * 2).await;
            let record = engine.inspect(&key).await.unwrap().unwrap();
            let RecordState::InFlight { remaining } = record.state else {
                panic!("{record:?}");
            };
            assert_eq!((remaining, record.attempt), (Duration::ZERO, 1));
            engine.resolve(&key, resolution()).await.unwrap();
            let twice = engine.resolve(&key, resolution()).await;

            // Then retries get the resolution.
            if executed {
                assert!(matches!(twice, Err(ResolveError::AlreadyCompleted)));
                let answer = send(&app, &payment()).await;
                assert_eq!(answer.text(), "by hand");
                assert_eq!(answer.lines("x-checked"), ["1"]);
                assert!(answer.replayed());
                assert_eq!(handler.starts(), 1);
            } else {
                assert!(matches!(twice, Err(ResolveError::NotFound)));
                send(&app, &payment()).await.assert_charge(2);
            }
        }
    });
}

#[test]
fn a_runtime_that_ends_during_an_execution_leaves_an_unknown_outcome() {
    let store = MemoryStore::new();
    let policy = Policy::new().lease(Duration::from_millis(300));
    let handler = CountingHandler::new();
    handler.close_gate();
    // Given a server whose runtime ends while a handler runs.
    let dying = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (held, engine) = (handler.clone(), Idempotency::builder().store(store.clone()));
    let engine = engine.policy(policy.clone()).build().unwrap();
    dying.block_on(async {
        let server = Server::start(Adapter::Attribute.app(&engine, &held)).await;
        let mut conn = crate::support::Conn::open(server.address).await;
        conn.send(&payment().wire()).await;
        held.started(1).await;
        std::mem::forget(server);
    });
    drop(dying);
    drop(engine);
    handler.open_gate();

    // When a retry arrives in another process, which waits for the execution.
    in_real_time(async move {
        let engine = Idempotency::builder().store(store).policy(policy);
        let server =
            Server::start(Adapter::Attribute.app(&engine.build().unwrap(), &handler)).await;
        let answer = server.send(&payment()).await;

        // Then it is answered when the lease has lapsed: with `outcome_unknown`, not with a second execution.
        answer.assert_problem(409, "outcome_unknown");
        assert_eq!((handler.starts(), handler.effects()), (1, 0));
    });
}

#[test]
fn waiters_learn_of_a_crash_from_a_store_that_sends_no_wakes() {
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::without_wakes());
        let policy = Policy::new().wait_timeout(LEASE * 3);
        let engine = Idempotency::builder().store(store).policy(policy);
        let app = adapter.app(&engine.build().unwrap(), &handler);
        handler.close_gate();
        crash(&app, &payment(), &handler).await;
        let waiter = send_in_task(&app, &payment());
        advance(LEASE + Duration::from_secs(1)).await;
        waiter.await.unwrap().assert_problem(409, "outcome_unknown");
    });
}

#[test]
fn the_trace_id_of_an_execution_is_stored_with_its_record() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        send(&app, &payment().header("traceparent", parent))
            .await
            .assert_charge(1);
        let key = IdempotencyKey::new("k").unwrap();
        let record = engine
            .inspect(&engine.store_key("POST /pay", None, &key))
            .await;
        let trace = record.unwrap().unwrap().trace_id.unwrap();
        assert_eq!(trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        // A retry has another trace, and is a replay all the same.
        let parent = "00-11111111111111111111111111111111-00f067aa0ba902b7-01";
        let again = payment().header("traceparent", parent);
        send(&app, &again).await.assert_replay_of_charge(1);
    });
}

#[test]
fn only_one_of_many_retries_takes_over_a_crashed_execution() {
    in_real_time(async {
        // Given many keys whose process crashed, in real time and on two threads.
        let (handler, store) = (CountingHandler::new(), MemoryStore::new());
        let lease = Duration::from_millis(5);
        let engine = |policy: Policy| {
            let policy = policy.on_crash(OnCrash::Retry);
            let engine = Idempotency::builder().store(store.clone()).policy(policy);
            engine.build().unwrap()
        };
        let dying = Adapter::Attribute.app(&engine(Policy::new().lease(lease)), &handler);
        let one = Adapter::Attribute.app(&engine(Policy::new()), &handler);
        let other = Adapter::Layer.app(&engine(Policy::new()), &handler);
        handler.close_gate();
        let keys: Vec<_> = (0..50).map(|n| format!("k{n}")).collect();
        for key in &keys {
            crash(&dying, &TestRequest::payment(key), &handler).await;
        }
        handler.open_gate();
        let taken = Arc::new(AtomicUsize::new(0));
        // Long enough on every machine: the memory store's clock is the one that this sleeps by.
        tokio::time::sleep(lease).await;

        // When retries of all of them arrive at once in both processes.
        let mut retries = Vec::new();
        for key in &keys {
            for app in [&one, &other, &one, &other] {
                let (retry, taken) = (
                    send_in_task(app, &TestRequest::payment(key)),
                    Arc::clone(&taken),
                );
                retries.push(tokio::spawn(async move {
                    let answer = retry.await.unwrap();
                    assert_eq!(answer.status, 201, "{answer:?}");
                    taken.fetch_add(usize::from(!answer.replayed()), Ordering::SeqCst);
                }));
            }
        }
        wait_until(|| retries.iter().all(tokio::task::JoinHandle::is_finished)).await;
        for retry in retries {
            retry.await.unwrap();
        }

        // Then each key executes exactly once more.
        assert_eq!(taken.load(Ordering::SeqCst), keys.len());
        assert_eq!(handler.effects(), keys.len());
    });
}

#[test]
fn a_recovered_response_that_is_too_large_to_store_is_sent_once_and_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let policy = Policy::new().max_response(100);
        let policy = policy.on_crash(OnCrash::Recover(|_| {
            let found = Response::new(Bytes::from(vec![b'x'; 101]));
            Box::pin(async { Recovery::Completed(found) })
        }));
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        crash(&app, &payment(), &handler).await;
        handler.open_gate();
        advance(LEASE * 2).await;
        assert_eq!(send(&app, &payment()).await.body.len(), 101);
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        assert_eq!(handler.starts(), 1);
    });
}
