//! Room for executions without a client (DESIGN.md, sections 4 and 11; invariant I15).

use std::time::Duration;

use idempotent_runtime::{Builder, Idempotency, Policy, scope};
use metrics_util::debugging::DebuggingRecorder;

use crate::support::{
    CountingHandler, FaultyStore, Metrics, TestRequest, advance, detached, run_ready_tasks, send,
    send_in_task, with_each_adapter,
};

fn by(tenant: &str, key: &str) -> TestRequest {
    TestRequest::payment(key).header("x-tenant", tenant)
}

/// Starts an execution whose client leaves.
async fn leave(app: &axum::Router, handler: &CountingHandler, request: &TestRequest) {
    let before = handler.starts();
    let client = send_in_task(app, request);
    handler.started(before + 1).await;
    client.abort();
    run_ready_tasks().await;
}

fn builder(max_detached: usize) -> Builder {
    Idempotency::builder()
        .max_detached(max_detached)
        .policy(Policy::new().wait(false))
        .scope(scope::header(http::HeaderName::from_static("x-tenant")))
}

fn engine(max_detached: usize) -> Idempotency {
    builder(max_detached).build().unwrap()
}

#[test]
fn without_room_replays_conflicts_and_mismatches_go_on() {
    with_each_adapter(async |adapter| {
        // Given a completed record, and no room because of an execution whose client has gone.
        let (engine, handler) = (engine(1), CountingHandler::new());
        let app = adapter.app(&engine, &handler);
        send(&app, &by("a", "done")).await.assert_charge(1);
        handler.close_gate();
        leave(&app, &handler, &by("b", "endless")).await;
        assert_eq!(detached(&engine), 1);

        // Then new executions are refused, and everything else is answered.
        send(&app, &by("a", "new"))
            .await
            .assert_problem(503, "overloaded");
        send(&app, &by("a", "done"))
            .await
            .assert_replay_of_charge(1);
        send(&app, &by("a", "done").body("{}"))
            .await
            .assert_problem(409, "mismatch");
        send(&app, &by("b", "endless"))
            .await
            .assert_problem(409, "conflict");
        assert_eq!(handler.starts(), 2);
    });
}

#[test]
fn an_overdue_execution_takes_no_room_and_its_outcome_is_stored_when_it_ends() {
    with_each_adapter(async |adapter| {
        let recorder = DebuggingRecorder::new();
        let (metrics, _guard) = Metrics::record(&recorder);
        let overdue = || {
            let counted = metrics.take().into_iter();
            let mut counted = counted.filter(|(series, _)| series.contains("overdue"));
            counted.next().map_or(0, |(_, count)| count)
        };
        // Whether the request waited before it executed or not.
        for engine in [builder(1), builder(1).store(FaultyStore::slow())] {
            let (engine, handler) = (engine.build().unwrap(), CountingHandler::new());
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            leave(&app, &handler, &by("a", "endless")).await;
            assert_eq!(overdue(), 0);
            send(&app, &by("b", "new"))
                .await
                .assert_problem(503, "overloaded");

            // When it is older than its lifetime, then there is room again.
            advance(Duration::from_secs(16 * 60)).await;
            assert_eq!((detached(&engine), overdue()), (0, 1));
            handler.let_through(2);
            send(&app, &by("b", "new")).await.assert_charge(2);

            // And its own outcome is stored all the same.
            handler.open_gate();
            run_ready_tasks().await;
            send(&app, &by("a", "endless"))
                .await
                .assert_replay_of_charge(1);
            assert_eq!(overdue(), 0, "counted twice");
        }
    });
}

#[test]
fn one_caller_takes_at_most_a_quarter_of_the_room() {
    with_each_adapter(async |adapter| {
        let (engine, handler) = (engine(8), CountingHandler::new());
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        for n in 0..2 {
            leave(&app, &handler, &by("greedy", &format!("k{n}"))).await;
        }
        send(&app, &by("greedy", "one-more"))
            .await
            .assert_problem(503, "overloaded");
        let other = send_in_task(&app, &by("other", "k"));
        handler.started(3).await;
        handler.open_gate();
        other.await.unwrap().assert_charge(3);
        run_ready_tasks().await;
        send(&app, &by("greedy", "one-more")).await.assert_charge(4);
        assert_eq!(detached(&engine), 0);
    });
}

#[test]
fn the_bodies_of_waiting_requests_are_bounded_by_their_bytes() {
    with_each_adapter(async |adapter| {
        let engine = Idempotency::builder()
            .max_waiting_bytes(2500)
            .build()
            .unwrap();
        let handler = CountingHandler::new();
        let app = adapter.app(&engine, &handler);
        let large = || TestRequest::payment("k").body("x".repeat(1000));
        handler.close_gate();
        let first = send_in_task(&app, &large());
        handler.started(1).await;
        let waiting: Vec<_> = (0..2).map(|_| send_in_task(&app, &large())).collect();
        run_ready_tasks().await;
        send(&app, &large()).await.assert_problem(409, "conflict");
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        for waiter in waiting {
            waiter.await.unwrap().assert_replay_of_charge(1);
        }
    });
}
