//! Bounds on detached executions and on records in memory (DESIGN.md, section 11; invariants I7, I15).

use std::time::Duration;

use idempotent_runtime::{Idempotency, MemoryStore, Policy};
use tower::ServiceExt;

use crate::support::{
    CountingHandler, Log, TestRequest, TestResponse, advance, detached, frames, run_ready_tasks,
    send, send_in_task, with_each_adapter,
};

#[test]
fn over_the_bound_of_detached_executions_only_new_executions_are_refused() {
    with_each_adapter(async |adapter| {
        // Given as many detached executions as are allowed.
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().max_detached(3).build().unwrap();
        let app = adapter.app(&engine, &handler);
        send(&app, &TestRequest::payment("k1"))
            .await
            .assert_charge(1);
        handler.close_gate();
        for n in 2..=4 {
            let leaving = send_in_task(&app, &TestRequest::payment(&format!("k{n}")));
            handler.started(n).await;
            leaving.abort();
            run_ready_tasks().await;
            assert_eq!(detached(&engine), n - 1);
        }

        // When requests with new keys arrive, then they get `overloaded`.
        let answer = send(&app, &TestRequest::payment("k6")).await;
        answer.assert_problem(503, "overloaded");
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(handler.starts(), 4);

        // But what executes nothing goes on, and so do requests without a key.
        send(&app, &TestRequest::payment("k1"))
            .await
            .assert_replay_of_charge(1);
        for key in ["k1", "k2"] {
            send(&app, &TestRequest::payment(key).body("{}"))
                .await
                .assert_problem(409, "mismatch");
        }
        let duplicate = send_in_task(&app, &TestRequest::payment("k2"));
        let keyless = send_in_task(&app, &TestRequest::post("/pay"));
        handler.started(5).await;
        assert!(!duplicate.is_finished());

        // And once a detached execution has ended, a new request executes.
        handler.let_through(2);
        run_ready_tasks().await;
        assert_eq!(detached(&engine), 2);
        duplicate.await.unwrap().assert_replay_of_charge(2);
        handler.open_gate();
        send(&app, &TestRequest::payment("k6"))
            .await
            .assert_charge(6);
        keyless.await.unwrap().assert_charge(5);
        for n in 1..=4 {
            send(&app, &TestRequest::payment(&format!("k{n}")))
                .await
                .assert_replay_of_charge(n);
        }
        assert_eq!(detached(&engine), 0);
    });
}

#[test]
fn the_bound_holds_for_requests_whose_bodies_are_still_arriving() {
    with_each_adapter(async |adapter| {
        // Given many requests that were admitted while there was room, and whose bodies have not ended.
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().max_detached(3).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let requests: Vec<_> = (0..20)
            .map(|n| {
                let (feed, body) = frames();
                let request = TestRequest::payment(&format!("k{n}")).request_with(body);
                let request = tokio::spawn(app.clone().oneshot(request));
                (feed, request)
            })
            .collect();
        run_ready_tasks().await;
        assert_eq!(handler.starts(), 0);

        // When one client after another ends its body and disconnects.
        let mut refused = 0;
        for (feed, request) in requests {
            drop(feed);
            run_ready_tasks().await;
            if request.is_finished() {
                let answer = TestResponse::read(request.await.unwrap().unwrap()).await;
                answer.assert_problem(503, "overloaded");
                refused += 1;
            } else {
                request.abort();
            }
            run_ready_tasks().await;
            assert!(detached(&engine) <= 3);
        }

        // Then the bound on detached executions holds, and the other requests got `overloaded`.
        assert_eq!((handler.starts(), refused), (3, 17));
        handler.open_gate();
        run_ready_tasks().await;
        assert_eq!(detached(&engine), 0);
    });
}

#[test]
fn the_bound_holds_for_waiters() {
    with_each_adapter(async |adapter| {
        // Given an execution, a duplicate that waits for it, and as many detached executions as are allowed.
        let handler = CountingHandler::with_first_status(429);
        let engine = Idempotency::builder().max_detached(1).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        let waiter = send_in_task(&app, &TestRequest::payment("k"));
        let left = send_in_task(&app, &TestRequest::payment("other"));
        handler.started(2).await;
        left.abort();
        run_ready_tasks().await;
        assert_eq!(detached(&engine), 1);

        // When the key is released, then the waiter executes only when there is room.
        handler.let_through(1);
        assert_eq!(first.await.unwrap().status, 429);
        advance(Duration::from_secs(5)).await;
        assert_eq!(handler.starts(), 2);
        handler.let_through(2);
        handler.let_through(3);
        advance(Duration::from_secs(1)).await;
        waiter.await.unwrap().assert_charge(3);
        assert_eq!((handler.starts(), detached(&engine)), (3, 0));
    });
}

#[test]
fn a_full_memory_store_refuses_new_keys_and_replays_stored_ones() {
    with_each_adapter(async |adapter| {
        for store in [
            MemoryStore::builder().max_records(3).build(),
            MemoryStore::builder().max_bytes(150).build(),
        ] {
            let handler = CountingHandler::new();
            let policy = Policy::new().ttl(Duration::from_secs(60));
            let engine = Idempotency::builder().store(store.clone()).policy(policy);
            let app = adapter.app(&engine.build().unwrap(), &handler);
            for n in 1..=3 {
                send(&app, &TestRequest::payment(&format!("k{n}")))
                    .await
                    .assert_charge(n);
            }
            let answer = send(&app, &TestRequest::payment("k4")).await;
            answer.assert_problem(503, "overloaded");
            assert_eq!(handler.starts(), 3);
            send(&app, &TestRequest::payment("k1"))
                .await
                .assert_replay_of_charge(1);

            // And when records expire, there is room again.
            advance(Duration::from_secs(61)).await;
            send(&app, &TestRequest::payment("k4"))
                .await
                .assert_charge(4);
        }
    });
}

#[test]
fn a_memory_store_warns_once_when_four_fifths_of_it_are_used() {
    with_each_adapter(async |adapter| {
        let (log, _guard) = Log::collect();
        let handler = CountingHandler::new();
        let store = MemoryStore::builder().max_records(10).build();
        let policy = Policy::new().ttl(Duration::from_secs(60));
        let engine = Idempotency::builder().store(store).policy(policy);
        let app = adapter.app(&engine.build().unwrap(), &handler);
        let warnings = || log.text().matches("80 % full").count();
        for n in 1..=10 {
            send(&app, &TestRequest::payment(&format!("k{n}")))
                .await
                .assert_charge(n);
            assert_eq!(warnings(), usize::from(n >= 8), "after {n} records");
        }

        // And again when it has been emptier in between: a full store makes room by deleting what has expired.
        advance(Duration::from_secs(61)).await;
        for n in 11..=20 {
            send(&app, &TestRequest::payment(&format!("k{n}")))
                .await
                .assert_charge(n);
        }
        assert_eq!(warnings(), 2);
    });
}

#[test]
fn an_execution_in_flight_is_never_evicted() {
    with_each_adapter(async |adapter| {
        // Given a store that evicts, full of executions in flight.
        let handler = CountingHandler::new();
        let store = MemoryStore::builder()
            .max_records(2)
            .evict_oldest_completed()
            .build();
        let engine = Idempotency::builder().store(store).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first: Vec<_> = (1..=2)
            .map(|n| send_in_task(&app, &TestRequest::payment(&format!("k{n}"))))
            .collect();
        handler.started(2).await;
        send(&app, &TestRequest::payment("k3"))
            .await
            .assert_problem(503, "overloaded");

        // When they have completed, then one of them is evicted, as the operator chose.
        handler.open_gate();
        for answer in first {
            assert_eq!(answer.await.unwrap().status, 201);
        }
        send(&app, &TestRequest::payment("k3"))
            .await
            .assert_charge(3);
    });
}
