//! A store that accepts the claim, and then is full or refuses the outcome (DESIGN.md, sections 2 and 4).

use std::time::Duration;

use idempotent_runtime::{Idempotency, Policy, store::StoreErrorKind};

use crate::support::{
    CountingHandler, Fault, FaultyStore, Operation, TestRequest, advance, run_ready_tasks, send,
    send_in_task, with_each_adapter,
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn engine(store: &FaultyStore) -> Idempotency {
    let engine = Idempotency::builder().store(store.clone());
    engine.build().unwrap()
}

#[test]
fn a_response_that_the_store_refuses_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        for kind in [
            StoreErrorKind::TooLarge,
            StoreErrorKind::Refused,
            StoreErrorKind::Full,
        ] {
            // Given a store that accepts the claim and refuses the response, as one with a limit of its own.
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let app = adapter.app(&engine(&store), &handler);
            store.fail_always(Operation::Complete, Fault::RejectResponse(kind));
            handler.close_gate();
            let first = send_in_task(&app, &payment());
            handler.started(1).await;
            let waiter = send_in_task(&app, &payment());
            run_ready_tasks().await;

            // When the execution ends, then its client gets the response, as with one over the route's limit.
            handler.open_gate();
            first.await.unwrap().assert_charge(1);
            // The completion is repeated only where that may help.
            let calls = store.calls(Operation::Complete);
            let once = kind == StoreErrorKind::TooLarge;
            assert!(
                if once { calls == 2 } else { calls > 5 },
                "{calls} for {kind:?}"
            );

            // And every other request gets `response_not_stored`, and nothing executes again.
            waiter
                .await
                .unwrap()
                .assert_problem(409, "response_not_stored");
            advance(Duration::from_secs(120)).await;
            send(&app, &payment())
                .await
                .assert_problem(409, "response_not_stored");
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_response_that_the_store_accepts_at_the_sixth_try_is_stored() {
    with_each_adapter(async |adapter| {
        for kind in [StoreErrorKind::Full, StoreErrorKind::Refused] {
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let app = adapter.app(&engine(&store), &handler);
            for _ in 0..5 {
                store.fail_next(Operation::Complete, Fault::Error(kind));
            }
            send(&app, &payment()).await.assert_charge(1);
            send(&app, &payment()).await.assert_replay_of_charge(1);
        }
    });
}

#[test]
fn a_tombstone_never_replaces_a_stored_response() {
    with_each_adapter(async |adapter| {
        // Given a completion that was applied and whose reply was lost, and a store that refuses the repetition.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = adapter.app(&engine(&store), &handler);
        store.fail_next(Operation::Complete, Fault::ReplyLost);
        store.fail_next(Operation::Complete, Fault::Error(StoreErrorKind::Refused));

        // Then the client and the retry get the response.
        let answer = send(&app, &payment()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (201, "charge 1"));
        send(&app, &payment()).await.assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn an_outcome_that_a_full_store_refused_is_stored_once_there_is_room() {
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = adapter.app(&engine(&store), &handler);
        store.fail_always(Operation::Complete, Fault::Error(StoreErrorKind::Full));
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        store.heal();
        advance(Duration::from_secs(60)).await;
        send(&app, &payment()).await.assert_replay_of_charge(1);
    });
}

#[test]
fn a_claim_applied_before_the_store_was_full_is_withdrawn() {
    with_each_adapter(async |adapter| {
        for kind in [
            StoreErrorKind::Full,
            StoreErrorKind::Refused,
            StoreErrorKind::Corrupt,
        ] {
            // Given an acquire that was applied, and whose repetition the store has no room for.
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let policy = Policy::new().wait(false);
            let engine = Idempotency::builder().store(store.clone()).policy(policy);
            let app = adapter.app(&engine.build().unwrap(), &handler);
            store.fail_next(Operation::Acquire, Fault::ReplyLost);
            store.fail_next(Operation::Acquire, Fault::Error(kind));
            assert_ne!(send(&app, &payment()).await.status, 201);
            assert_eq!(handler.starts(), 0);

            // When the claim has been withdrawn, then the retry executes, long before the lease has lapsed.
            advance(Duration::from_secs(1)).await;
            send(&app, &payment()).await.assert_charge(1);
        }
    });
}
