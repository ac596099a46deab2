//! What becomes of a crashed execution by a recovery function or by an operator (DESIGN.md, sections 1 and 4;
//! invariants I2, I3).

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response};
use idempotent_runtime::{
    Builder, Crash, Idempotency, IdempotencyKey, MemoryStore, OnCrash, Policy, Recovery,
    Resolution, ResolveError, store::RecordState,
};

use crate::support::{
    Adapter, CountingHandler, Process, TestRequest, advance, crash, send, send_in_task,
    with_each_adapter, with_paused_clock,
};

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn builder(policy: &Policy) -> Builder {
    Idempotency::builder().policy(policy.clone())
}

/// The engine of a process on a store on which another process has crashed while it executed the payment.
async fn after_crash(adapter: Adapter, policy: Policy, handler: &CountingHandler) -> Idempotency {
    let store = MemoryStore::new();
    handler.close_gate();
    crash(
        adapter,
        builder(&policy),
        store.clone(),
        &payment(),
        handler,
    )
    .await;
    handler.open_gate();
    builder(&policy).store(store).build().unwrap()
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
        let engine = after_crash(adapter, recovering(), &handler).await;
        let app = adapter.app(&engine, &handler);
        let bank = handler.execution(1).downstream_key("bank");
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
        let engine = after_crash(adapter, recovering(), &handler).await;
        let app = adapter.app(&engine, &handler);
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
        let engine = after_crash(adapter, recovering(), &handler).await;
        let app = adapter.app(&engine, &handler);
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
        let (store, policy) = (
            MemoryStore::new(),
            Policy::new()
                .on_crash(OnCrash::Recover(|crash| Box::pin(slow(crash))))
                .wait_timeout(LEASE * 4),
        );
        handler.close_gate();
        crash(
            Adapter::Layer,
            builder(&policy),
            store.clone(),
            &payment(),
            &handler,
        )
        .await;
        handler.open_gate();
        let [here, there] = [Adapter::Attribute, Adapter::Layer].map(|adapter| {
            let engine = builder(&policy).store(store.clone());
            adapter.app(&engine.build().unwrap(), &handler)
        });
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
        static CALLED: AtomicUsize = AtomicUsize::new(0);
        async fn never(_: Crash) -> Recovery {
            CALLED.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        }
        let handler = CountingHandler::new();
        let store = MemoryStore::new();
        handler.close_gate();
        crash(
            adapter,
            builder(&recovering()),
            store.clone(),
            &payment(),
            &handler,
        )
        .await;
        handler.open_gate();
        advance(LEASE * 2).await;

        // When the process that runs the recovery function crashes too.
        let hangs = OnCrash::Recover(|crash| Box::pin(never(crash)));
        let dying = Process::start(builder(&Policy::new().on_crash(hangs)), store.clone());
        let (app, before) = (
            adapter.app(&dying.engine, &handler),
            CALLED.load(Ordering::SeqCst),
        );
        let called = || CALLED.load(Ordering::SeqCst) > before;
        dying.crash_when(&app, &payment(), called).await;
        advance(LEASE * 2).await;

        // Then the next retry calls the function, with the number of the last attempt, which was the recovery.
        let engine = builder(&recovering()).store(store);
        let app = adapter.app(&engine.build().unwrap(), &handler);
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
            let engine = after_crash(adapter, Policy::new(), &handler).await;
            let app = adapter.app(&engine, &handler);
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
fn a_recovered_response_that_is_too_large_to_store_is_sent_once_and_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let policy = Policy::new().max_response(100);
        let policy = policy.on_crash(OnCrash::Recover(|_| {
            let found = Response::new(Bytes::from(vec![b'x'; 101]));
            Box::pin(async { Recovery::Completed(found) })
        }));
        let app = adapter.app(&after_crash(adapter, policy, &handler).await, &handler);
        advance(LEASE * 2).await;
        assert_eq!(send(&app, &payment()).await.body.len(), 101);
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_recovered_response_does_not_say_of_itself_that_it_is_a_replay() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let policy = Policy::new().on_crash(OnCrash::Recover(|_| {
            let found = Response::builder()
                .header("idempotent-replay", "true")
                .header("x-receipt", "r1");
            let found = found.body(Bytes::from_static(b"found")).unwrap();
            Box::pin(async { Recovery::Completed(found) })
        }));
        let app = adapter.app(&after_crash(adapter, policy, &handler).await, &handler);
        advance(LEASE * 2).await;
        for replayed in [false, true] {
            let answer = send(&app, &payment()).await;
            assert_eq!(&answer.body[..], b"found");
            assert_eq!(answer.headers["x-receipt"], "r1");
            let marks = answer.headers.get_all("idempotent-replay").iter().count();
            assert_eq!(marks, usize::from(replayed));
        }
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_recovered_response_with_a_wrong_length_is_sent_and_replayed_whole() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let policy = Policy::new().on_crash(OnCrash::Recover(|_| {
            let found = Response::builder().header("content-length", "3");
            let found = found.body(Bytes::from_static(b"found")).unwrap();
            Box::pin(async { Recovery::Completed(found) })
        }));
        let app = adapter.app(&after_crash(adapter, policy, &handler).await, &handler);
        advance(LEASE * 2).await;
        for _ in 0..2 {
            let answer = send(&app, &payment()).await;
            assert_eq!(&answer.body[..], b"found");
            assert!(!answer.lines("content-length").contains(&"3"));
        }
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn an_operator_cannot_give_an_answer_that_no_exchange_ends_with() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let engine = after_crash(Adapter::Attribute, Policy::new(), &handler).await;
        advance(LEASE * 2).await;
        let key = engine.store_key("POST /pay", None, &IdempotencyKey::new("k").unwrap());
        for status in [100, 101, 103] {
            let response = Response::builder().status(status);
            let response = Resolution::Completed(response.body(Bytes::new()).unwrap());
            let refused = engine.resolve(&key, response).await.unwrap_err();
            assert!(matches!(refused, ResolveError::NotStorable(_)), "{refused}");
        }
        let record = engine.inspect(&key).await.unwrap().unwrap();
        assert!(
            matches!(record.state, RecordState::InFlight { .. }),
            "{record:?}"
        );
    });
}
