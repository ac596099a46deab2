//! Executions whose process crashes half-way (DESIGN.md, sections 1 and 9; invariants I2, I3, L2).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use idempotent_runtime::{Builder, Idempotency, IdempotencyKey, MemoryStore, OnCrash, Policy};

use crate::support::{
    Adapter, CountingHandler, FaultyStore, Server, TestRequest, advance, crash, in_real_time,
    run_ready_tasks, send, send_in_task, wait_until, waiters, with_each_adapter,
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

#[test]
fn a_crashed_execution_leaves_an_unknown_outcome_until_the_key_expires() {
    with_each_adapter(async |adapter| {
        // Given an execution whose process crashed, and duplicates that wait in another process.
        let handler = CountingHandler::new();
        let policy = Policy::new()
            .ttl(Duration::from_secs(3600))
            .wait_timeout(LEASE * 3);
        let there = after_crash(adapter, policy, &handler).await;
        let app = adapter.app(&there, &handler);
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
        let policy = Policy::new()
            .on_crash(OnCrash::Retry)
            .wait_timeout(LEASE * 3);
        let app = adapter.app(&after_crash(adapter, policy, &handler).await, &handler);
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
        let (store, policy) = (MemoryStore::new(), Policy::new().on_crash(OnCrash::Retry));
        handler.close_gate();
        for _ in 0..4 {
            let dying = builder(&policy);
            crash(adapter, dying, store.clone(), &payment(), &handler).await;
            advance(LEASE + Duration::from_secs(1)).await;
        }
        handler.open_gate();
        let engine = builder(&policy).store(store).build().unwrap();
        let app = adapter.app(&engine, &handler);
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
            let app = adapter.app(&after_crash(adapter, policy, &handler).await, &handler);
            advance(LEASE * 2).await;
            let other = send(&app, &payment().body("{}")).await;
            other.assert_problem(409, "mismatch");
            assert_eq!(handler.starts(), 1);
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
        handler.close_gate();
        crash(
            adapter,
            builder(&policy),
            store.clone(),
            &payment(),
            &handler,
        )
        .await;
        let engine = builder(&policy).store(store);
        let app = adapter.app(&engine.build().unwrap(), &handler);
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
        // Long enough for a slow machine to start a handler within it.
        let lease = Duration::from_secs(1);
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let [one, other] = [Adapter::Attribute, Adapter::Layer].map(|adapter| {
            let engine = builder(&policy).store(store.clone());
            adapter.app(&engine.build().unwrap(), &handler)
        });
        handler.close_gate();
        let keys: Vec<_> = (0..50).map(|n| format!("k{n}")).collect();
        for key in &keys {
            let (dying, request) = (
                builder(&policy.clone().lease(lease)),
                TestRequest::payment(key),
            );
            crash(Adapter::Attribute, dying, store.clone(), &request, &handler).await;
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
