//! A store that cannot be reached, or whose replies are lost (DESIGN.md, sections 3 and 4; invariant I12).

use std::{sync::Arc, time::Duration};

use axum::response::IntoResponse;
use http::StatusCode;
use idempotent_runtime::{
    Idempotency, MemoryStore, OnCrash, OnStoreError, Policy, Recovery, store::StoreErrorKind,
};
use tokio::sync::Semaphore;

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Operation, TestRequest, advance, crash,
    run_ready_tasks, send, send_in_task, with_each_adapter,
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn engine(store: &FaultyStore) -> Idempotency {
    let engine = Idempotency::builder().store(store.clone());
    engine.build().unwrap()
}

fn engine_with(store: &FaultyStore, policy: Policy) -> Idempotency {
    let engine = Idempotency::builder().store(store.clone()).policy(policy);
    engine.build().unwrap()
}

/// Leaves the record of a crashed execution in this store, with a lapsed lease.
pub(crate) async fn leave_crashed_execution(
    adapter: Adapter,
    store: &FaultyStore,
    policy: Policy,
    handler: &CountingHandler,
) {
    let dying = Idempotency::builder().policy(policy);
    handler.close_gate();
    crash(adapter, dying, store.clone(), &payment(), handler).await;
    handler.open_gate();
    advance(Duration::from_secs(31)).await;
}

/// Every way in which an acquire fails, repetitions included.
fn outages() -> [Fault; 3] {
    [
        Fault::Unreachable,
        Fault::Hang,
        Fault::Error(StoreErrorKind::Refused),
    ]
}

#[test]
fn without_the_store_no_handler_starts() {
    with_each_adapter(async |adapter| {
        for outage in outages() {
            // Given a store that cannot be reached, does not answer, or refuses.
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let app = adapter.app(&engine(&store), &handler);
            store.fail_always(Operation::Acquire, outage);

            // When a request arrives, then it is refused and the handler does not start.
            let answer = send(&app, &payment()).await;
            answer.assert_problem(503, "store_unavailable");
            assert_eq!(handler.starts(), 0);

            // And when the store is back, the retry executes.
            store.heal();
            send(&app, &payment()).await.assert_charge(1);
        }
    });
}

#[test]
fn each_kind_of_store_error_has_its_answer() {
    with_each_adapter(async |adapter| {
        for (kind, calls, status, code) in [
            (StoreErrorKind::Unavailable, 2, 503, "store_unavailable"),
            (StoreErrorKind::Refused, 1, 503, "store_unavailable"),
            (StoreErrorKind::Full, 1, 503, "overloaded"),
            (StoreErrorKind::Corrupt, 1, 500, "record_unreadable"),
        ] {
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let app = adapter.app(&engine(&store), &handler);
            store.fail_always(Operation::Acquire, Fault::Error(kind));
            send(&app, &payment()).await.assert_problem(status, code);
            // The acquire is repeated only where that may help.
            assert_eq!(store.calls(Operation::Acquire), calls, "{kind:?}");
            assert_eq!(handler.starts(), 0);
        }
    });
}

#[test]
fn a_slow_store_is_waited_for() {
    with_each_adapter(async |adapter| {
        // Given a store whose acquires and completions each take 900 ms.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = adapter.app(&engine(&store), &handler);
        let permits = Arc::new(Semaphore::new(0));
        store.fail_always(Operation::Acquire, Fault::HoldRequest(permits.clone()));
        store.fail_always(Operation::Complete, Fault::HoldRequest(permits.clone()));
        let request = send_in_task(&app, &payment());
        for _ in 0..2 {
            advance(Duration::from_millis(900)).await;
            permits.add_permits(1);
        }
        request.await.unwrap().assert_charge(1);
        permits.add_permits(1);
        send(&app, &payment()).await.assert_replay_of_charge(1);
    });
}

#[test]
fn on_store_error_execute_executes_without_a_store() {
    with_each_adapter(async |adapter| {
        for outage in outages() {
            let handler = CountingHandler::responding(|n| {
                let passed_on = [("idempotent-replay", "true")];
                (StatusCode::CREATED, passed_on, format!("charge {n}")).into_response()
            });
            let store = FaultyStore::new();
            let engine = Idempotency::builder()
                .store(store.clone())
                .on_store_error(OnStoreError::Execute)
                .build()
                .unwrap();
            let app = adapter.app(&engine, &handler);
            store.fail_always(Operation::Acquire, outage);
            // A replay header that the handler passes on from another service does not make it a replay.
            for n in 1..=2 {
                send(&app, &payment()).await.assert_charge(n);
            }
            assert_eq!(handler.attempts(), [1, 1]);
            assert!(handler.execution(1).lease_lost(), "there is no lease");
        }
    });
}

#[test]
fn on_store_error_execute_does_not_execute_when_the_store_is_full() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder()
            .store(MemoryStore::builder().max_records(0).build())
            .on_store_error(OnStoreError::Execute)
            .build()
            .unwrap();
        let answer = send(&adapter.app(&engine, &handler), &payment()).await;
        answer.assert_problem(503, "overloaded");
        assert_eq!(handler.starts(), 0);
    });
}

#[test]
fn on_store_error_execute_never_executes_a_key_that_was_seen_in_flight() {
    with_each_adapter(async |adapter| {
        // Given an execution in flight, and a duplicate that waits for it in its process and one in another process.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let [here, there] = [(); 2].map(|()| {
            let engine = Idempotency::builder()
                .store(store.clone())
                .on_store_error(OnStoreError::Execute);
            adapter.app(&engine.build().unwrap(), &handler)
        });
        handler.close_gate();
        let first = send_in_task(&here, &payment());
        handler.started(1).await;
        let duplicates = [&here, &there].map(|app| send_in_task(app, &payment()));
        run_ready_tasks().await;

        // When the store fails until the duplicates' time-out.
        store.fail_always(Operation::Acquire, Fault::Unreachable);
        advance(Duration::from_secs(31)).await;

        // Then both are refused: the one knows that the key is in flight, and the store had said so to the other.
        let [here, there] = duplicates;
        here.await.unwrap().assert_problem(409, "conflict");
        there
            .await
            .unwrap()
            .assert_problem(503, "store_unavailable");
        assert_eq!(handler.starts(), 1, "the key was seen in flight");
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
    });
}

#[test]
fn on_store_error_execute_never_executes_a_key_that_was_seen_crashed() {
    with_each_adapter(async |adapter| {
        // Given a crashed execution, and a recovery function.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let policy = Policy::new().on_crash(OnCrash::Recover(|_| {
            Box::pin(async { Recovery::StillUnknown })
        }));
        leave_crashed_execution(adapter, &store, policy.clone(), &handler).await;
        let engine = Idempotency::builder()
            .store(store.clone())
            .on_store_error(OnStoreError::Execute)
            .policy(policy)
            .build()
            .unwrap();
        let app = adapter.app(&engine, &handler);

        // When the store shows the crash and then fails before the function is called.
        store.fail_next(Operation::Acquire, Fault::None);
        store.fail_always(Operation::Acquire, Fault::Unreachable);
        let answer = send(&app, &payment()).await;

        // Then nothing is executed.
        answer.assert_problem(503, "store_unavailable");
        assert_eq!(
            handler.starts(),
            1,
            "the first execution may have had its effect"
        );
    });
}

#[test]
fn a_heartbeat_that_fails_is_repeated_before_the_lease_lapses() {
    with_each_adapter(async |adapter| {
        // Given an execution of ten leases in which every second renewal fails.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let policy = Policy::new().wait(false);
        let app = adapter.app(&engine_with(&store, policy), &handler);
        for n in 0..100 {
            let fault = if n % 2 == 0 {
                Fault::Unreachable
            } else {
                Fault::None
            };
            store.fail_next(Operation::Renew, fault);
        }
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        for _ in 0..300 {
            advance(Duration::from_secs(1)).await;
            send(&app, &payment()).await.assert_problem(409, "conflict");
            assert!(!handler.execution(1).lease_lost());
        }
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
    });
}

#[test]
fn an_outcome_whose_record_was_lost_is_answered_as_unknown() {
    with_each_adapter(async |adapter| {
        // Given a store that loses the record of an execution in flight, as one that was flushed does.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = adapter.app(&engine(&store), &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        store.lose_record().await;
        handler.open_gate();

        // Then the client does not get an outcome that no retry will get.
        first.await.unwrap().assert_problem(409, "outcome_unknown");
    });
}
