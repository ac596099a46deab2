//! Operations whose replies are lost: repeated, withdrawn or stored later (DESIGN.md, section 4; invariants I2, I3,
//! I5, I9).

use std::time::Duration;

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    response::Response,
    routing::post,
};
use idempotent_runtime::{
    Idempotency, OnCrash, Policy, Recovery, idempotent, store::StoreErrorKind,
};

use crate::store_faults::leave_crashed_execution;
use crate::support::{
    CountingHandler, Fault, FaultyStore, Operation, TestRequest, advance, run_ready_tasks, send,
    send_in_task, waiters, with_each_adapter, with_paused_clock,
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

#[test]
fn an_acquire_whose_reply_was_lost_is_repeated_and_executes_once() {
    with_each_adapter(async |adapter| {
        for lost in [Fault::ReplyLost, Fault::HangAfterApplying] {
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let app = adapter.app(&engine(&store), &handler);
            store.fail_next(Operation::Acquire, lost);
            send(&app, &payment()).await.assert_charge(1);
            send(&app, &payment()).await.assert_replay_of_charge(1);
            assert_eq!((handler.starts(), handler.attempts()), (1, vec![1]));
        }
    });
}

#[test]
fn an_acquire_that_was_applied_but_never_acknowledged_is_withdrawn() {
    with_each_adapter(async |adapter| {
        for policy in [Policy::new(), Policy::new().wait(false)] {
            // Given an acquire of which every reply is lost.
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let app = adapter.app(&engine_with(&store, policy), &handler);
            store.fail_next(Operation::Acquire, Fault::ReplyLost);
            store.fail_next(Operation::Acquire, Fault::ReplyLost);
            let answer = send(&app, &payment()).await;
            answer.assert_problem(503, "store_unavailable");
            assert_eq!(handler.starts(), 0);

            // When the claim has been withdrawn, then the retry executes, long before the lease has lapsed.
            advance(Duration::from_secs(1)).await;
            send(&app, &payment()).await.assert_charge(1);
        }
    });
}

#[test]
fn a_claim_is_withdrawn_even_when_releases_fail_at_first() {
    with_each_adapter(async |adapter| {
        // Given an acquire in doubt, and a store whose first releases fail or are not acknowledged.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = adapter.app(&engine(&store), &handler);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        store.fail_next(Operation::Acquire, Fault::Hang);
        store.fail_next(Operation::Release, Fault::Unreachable);
        store.fail_next(Operation::Release, Fault::ReplyLost);
        let request = send_in_task(&app, &payment());
        advance(Duration::from_secs(3)).await;
        request
            .await
            .unwrap()
            .assert_problem(503, "store_unavailable");

        // When the store is well again, then the key is free.
        advance(Duration::from_secs(2)).await;
        send(&app, &payment()).await.assert_charge(1);
        assert_eq!(handler.attempts(), [1]);
    });
}

#[test]
fn a_lost_take_over_of_a_crashed_execution_does_not_forget_the_crash() {
    with_each_adapter(async |adapter| {
        // Given a crashed execution, under `on_crash = path`.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let recover: idempotent_runtime::RecoverFn = |_| Box::pin(async { Recovery::StillUnknown });
        let policy = Policy::new().on_crash(OnCrash::Recover(recover));
        leave_crashed_execution(adapter, &store, policy.clone(), &handler).await;
        let app = adapter.app(&engine_with(&store, policy), &handler);

        // When a retry sees the crash and takes over to recover it, and the replies to that are lost.
        store.fail_next(Operation::Acquire, Fault::None);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        let answer = send(&app, &payment()).await;
        answer.assert_problem(503, "store_unavailable");
        advance(Duration::from_secs(2)).await;

        // Then the next retry calls the recovery function too, and does not execute as with a new key.
        let answer = send(&app, &payment()).await;
        answer.assert_problem(409, "outcome_unknown");
        assert_eq!(
            handler.starts(),
            1,
            "the first execution may have had its effect"
        );
    });
}

#[test]
fn a_lost_take_over_does_not_restart_the_fencing_token() {
    with_each_adapter(async |adapter| {
        // Given a crashed execution, under `on_crash = "retry"`.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let policy = Policy::new().on_crash(OnCrash::Retry);
        leave_crashed_execution(adapter, &store, policy.clone(), &handler).await;
        let app = adapter.app(&engine_with(&store, policy), &handler);

        // When a retry sees the crash and takes over, and the replies to that are lost.
        store.fail_next(Operation::Acquire, Fault::None);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        let answer = send(&app, &payment()).await;
        answer.assert_problem(503, "store_unavailable");
        advance(Duration::from_secs(2)).await;

        // Then the next execution's attempt is higher than any before it.
        send(&app, &payment()).await.assert_charge(2);
        let attempts = handler.attempts();
        assert!(attempts[1] > attempts[0], "{attempts:?}");
    });
}

#[test]
fn a_waiter_that_disconnects_after_a_lost_acquire_leaves_no_claim_behind() {
    with_each_adapter(async |adapter| {
        // Given an execution that releases its key, and a duplicate that waits for it.
        let (handler, store) = (
            CountingHandler::with_first_status(429),
            FaultyStore::without_wakes(),
        );
        let engine = engine(&store);
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        let second = send_in_task(&app, &payment());
        run_ready_tasks().await;
        assert_eq!(waiters(&engine), 1);

        // When the waiter's acquire gets the released key, all replies to it are lost, and its client disconnects.
        store.fail_always(Operation::Acquire, Fault::ReplyLost);
        let acquires = store.calls(Operation::Acquire);
        handler.open_gate();
        assert_eq!(first.await.unwrap().status, 429);
        advance(Duration::from_millis(100)).await;
        assert!(store.calls(Operation::Acquire) > acquires);
        second.abort();
        advance(Duration::from_secs(3)).await;
        store.heal();
        advance(Duration::from_secs(37)).await;

        // Then the key does not stay claimed: the retry gets an outcome.
        let answer = send(&app, &payment()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(handler.effects(), 2, "the released execution and one more");
    });
}

#[test]
fn a_completion_whose_reply_was_lost_is_repeated_and_harmless() {
    with_each_adapter(async |adapter| {
        for lost in [
            Fault::ReplyLost,
            Fault::HangAfterApplying,
            Fault::Unreachable,
            Fault::Hang,
        ] {
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let app = adapter.app(&engine(&store), &handler);
            store.fail_next(Operation::Complete, lost.clone());
            store.fail_next(Operation::Complete, lost);
            send(&app, &payment()).await.assert_charge(1);
            assert_eq!(store.calls(Operation::Complete), 3);
            send(&app, &payment()).await.assert_replay_of_charge(1);
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_completion_that_is_not_acknowledged_answers_outcome_unknown_and_is_stored_later() {
    with_each_adapter(async |adapter| {
        for outage in [
            Fault::Unreachable,
            Fault::ReplyLost,
            Fault::Error(StoreErrorKind::Refused),
        ] {
            // Given a store that fails once the handler has run.
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let policy = Policy::new().wait(false);
            let [app, other] =
                [(); 2].map(|()| adapter.app(&engine_with(&store, policy.clone()), &handler));
            let applied = matches!(outage, Fault::ReplyLost);
            store.fail_always(Operation::Complete, outage);

            // When the time for completing is over, then the answer is `outcome_unknown`.
            let answer = send(&app, &payment()).await;
            answer.assert_problem(409, "outcome_unknown");

            // And so is that to its duplicates in this process, at once and later.
            send(&app, &payment())
                .await
                .assert_problem(409, "outcome_unknown");

            // And in other processes the key stays claimed while the store is unreachable, lease after lease.
            if !applied {
                advance(Duration::from_secs(120)).await;
                send(&app, &payment())
                    .await
                    .assert_problem(409, "outcome_unknown");
                send(&other, &payment())
                    .await
                    .assert_problem(409, "conflict");
            }

            // And when the store is back, the outcome is stored after all.
            store.heal();
            advance(Duration::from_secs(60)).await;
            for app in [&app, &other] {
                send(app, &payment()).await.assert_replay_of_charge(1);
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn waiters_of_other_processes_get_the_outcome_that_was_stored_late() {
    with_each_adapter(async |adapter| {
        // Given an execution, a duplicate that waits in its process, and one in another process.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let [here, there] = [(); 2].map(|()| adapter.app(&engine(&store), &handler));
        store.fail_always(Operation::Complete, Fault::Unreachable);
        handler.close_gate();
        let first = send_in_task(&here, &payment());
        handler.started(1).await;
        let [inside, outside] = [&here, &there].map(|app| send_in_task(app, &payment()));
        run_ready_tasks().await;

        // When its completion is not acknowledged, then the duplicate in its process is answered as its own client is.
        handler.open_gate();
        first.await.unwrap().assert_problem(409, "outcome_unknown");
        run_ready_tasks().await;
        assert!(inside.is_finished());
        inside.await.unwrap().assert_problem(409, "outcome_unknown");

        // And when the outcome is stored late, then the other one gets it.
        advance(Duration::from_secs(5)).await;
        assert!(!outside.is_finished());
        store.heal();
        advance(Duration::from_secs(3)).await;
        outside.await.unwrap().assert_replay_of_charge(1);
        send(&here, &payment()).await.assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn an_outcome_that_cannot_be_stored_is_abandoned_when_its_lifetime_is_over() {
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = adapter.app(&engine(&store), &handler);
        store.fail_always(Operation::Complete, Fault::Unreachable);
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        advance(Duration::from_secs(16 * 60)).await;
        let calls = store.calls(Operation::Complete);
        advance(Duration::from_secs(120)).await;
        assert_eq!(
            store.calls(Operation::Complete),
            calls,
            "the completion is not repeated any more"
        );
        store.heal();

        // Then the key does not execute a second time.
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_release_whose_reply_was_lost_is_repeated() {
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::with_first_status(429), FaultyStore::new());
        let app = adapter.app(&engine(&store), &handler);
        store.fail_next(Operation::Release, Fault::ReplyLost);
        store.fail_next(Operation::Release, Fault::Unreachable);
        assert_eq!(send(&app, &payment()).await.status, 429);
        send(&app, &payment()).await.assert_charge(2);
    });
}

#[test]
fn a_release_that_was_not_acknowledged_is_repeated_until_the_store_is_back() {
    with_each_adapter(async |adapter| {
        // Longer than the store time-out, than a lease, than many leases.
        for outage in [10, 60, 300] {
            // Given a response that releases its key, and a store that is unreachable by then.
            let (handler, store) = (CountingHandler::with_first_status(429), FaultyStore::new());
            let policy = Policy::new().wait(false);
            let app = adapter.app(&engine_with(&store, policy), &handler);
            store.fail_always(Operation::Release, Fault::Unreachable);
            assert_eq!(send(&app, &payment()).await.status, 429);
            advance(Duration::from_secs(outage)).await;
            assert_ne!(send(&app, &payment()).await.status, 201);
            assert_eq!(handler.starts(), 1);

            // When the store is back, then the key is free.
            store.heal();
            advance(Duration::from_secs(15)).await;
            send(&app, &payment()).await.assert_charge(2);
            assert_eq!(handler.attempts(), [1, 1], "as with a new key");
        }
    });
}

#[test]
fn the_release_after_a_rejection_is_repeated_until_the_store_is_back() {
    #[idempotent(wait = false)]
    async fn order(State(handler): State<CountingHandler>, Json(order): Json<u32>) -> Response {
        handler.call(Request::new(order.to_string().into())).await
    }

    with_paused_clock(async {
        // Given a request that the handler's extractors reject while the store does not answer.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = Router::new()
            .route("/order", post(order))
            .layer(Extension(engine(&store)))
            .with_state(handler.clone());
        let order = TestRequest::post("/order").key("k");
        let order = order.header("content-type", "application/json");
        store.fail_always(Operation::Release, Fault::Hang);
        assert_eq!(send(&app, &order.clone().body("x")).await.status, 400);
        advance(Duration::from_secs(60)).await;

        // When the store is back, then the corrected request executes.
        store.heal();
        advance(Duration::from_secs(15)).await;
        send(&app, &order.body("7")).await.assert_charge(1);
    });
}
