//! Claims in doubt: acquires whose answer is lost, or that arrive late or twice (DESIGN.md, sections 4 and 9; invariants
//! I2, I3, I12). Each scenario is a trace that a model checker found.

use std::{sync::Arc, time::Duration};

use axum::response::IntoResponse;
use http::StatusCode;
use idempotent_runtime::{
    Idempotency, MemoryStore, OnCrash, Policy, Recovery, store::LONGEST_DELAY,
};
use tokio::sync::Semaphore;

use crate::support::{
    CountingHandler, Fault, FaultyStore, Operation, TestRequest, advance, crash, run_ready_tasks,
    send, send_in_task, with_each_adapter,
};

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn closed() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

/// One process: an engine whose messages to the shared store are lost or late on command.
fn process(shared: &MemoryStore, policy: &Policy) -> (FaultyStore, Idempotency) {
    let store = FaultyStore::over(shared.clone());
    let engine = Idempotency::builder()
        .store(store.clone())
        .policy(policy.clone());
    (store, engine.build().unwrap())
}

fn no_wait() -> Policy {
    Policy::new().wait(false)
}

/// Lets the late message arrive, and what follows from it happen.
async fn arrives(message: &Semaphore) {
    message.add_permits(1);
    run_ready_tasks().await;
    // Withdrawals pause for at most half a minute and a half.
    advance(Duration::from_secs(60)).await;
}

#[test]
fn an_acquire_that_arrives_after_its_request_released_is_withdrawn() {
    with_each_adapter(async |adapter| {
        // Given an acquire that is late, whose repetition is acquired, and a handler that releases.
        let (store, engine) = process(&MemoryStore::new(), &no_wait());
        let handler = CountingHandler::with_first_status(429);
        let app = adapter.app(&engine, &handler);
        let late = closed();
        store.fail_next(Operation::Acquire, Fault::Late(Arc::clone(&late)));
        assert_eq!(send(&app, &payment()).await.status, 429);

        // When it arrives, then the key is not blocked.
        arrives(&late).await;
        send(&app, &payment()).await.assert_charge(2);
    });
}

#[test]
fn an_acquire_whose_every_answer_was_lost_is_withdrawn() {
    with_each_adapter(async |adapter| {
        let (store, engine) = process(&MemoryStore::new(), &no_wait());
        let handler = CountingHandler::new();
        let app = adapter.app(&engine, &handler);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        send(&app, &payment())
            .await
            .assert_problem(503, "store_unavailable");
        run_ready_tasks().await;
        send(&app, &payment()).await.assert_charge(1);
    });
}

#[test]
fn an_acquire_that_arrives_after_its_request_got_a_conflict_is_withdrawn() {
    with_each_adapter(async |adapter| {
        // Given an execution here, and a duplicate there whose first acquire is late and whose second finds it in flight.
        let shared = MemoryStore::new();
        let (_, here) = process(&shared, &no_wait());
        let (store, there) = process(&shared, &no_wait());
        let handler = CountingHandler::with_first_status(429);
        let (here, there) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        let first = send_in_task(&here, &payment());
        handler.started(1).await;
        let late = closed();
        store.fail_next(Operation::Acquire, Fault::Late(Arc::clone(&late)));
        send(&there, &payment())
            .await
            .assert_problem(409, "conflict");

        // When the execution releases the key, and then the late acquire arrives.
        handler.open_gate();
        assert_eq!(first.await.unwrap().status, 429);
        arrives(&late).await;

        // Then the key is not blocked, in either process.
        send(&there, &payment()).await.assert_charge(2);
        send(&here, &payment()).await.assert_replay_of_charge(2);
    });
}

#[test]
fn each_of_two_late_acquires_is_withdrawn() {
    with_each_adapter(async |adapter| {
        let (store, engine) = process(&MemoryStore::new(), &no_wait());
        let handler = CountingHandler::new();
        let app = adapter.app(&engine, &handler);
        let (first, second) = (closed(), closed());
        store.fail_next(Operation::Acquire, Fault::Late(Arc::clone(&first)));
        store.fail_next(Operation::Acquire, Fault::Late(Arc::clone(&second)));
        send(&app, &payment())
            .await
            .assert_problem(503, "store_unavailable");
        // The first withdrawal that succeeds is not the last.
        arrives(&first).await;
        arrives(&second).await;
        send(&app, &payment()).await.assert_charge(1);
    });
}

#[test]
fn a_withdrawal_goes_on_until_no_acquire_can_arrive_and_then_ends() {
    with_each_adapter(async |adapter| {
        let (store, engine) = process(&MemoryStore::new(), &no_wait());
        let handler = CountingHandler::new();
        let app = adapter.app(&engine, &handler);
        let late = closed();
        store.fail_next(Operation::Acquire, Fault::Late(Arc::clone(&late)));
        store.fail_next(Operation::Acquire, Fault::Unreachable);
        send(&app, &payment())
            .await
            .assert_problem(503, "store_unavailable");
        advance(LONGEST_DELAY.saturating_sub(Duration::from_secs(5))).await;
        late.add_permits(1);
        advance(Duration::from_secs(60)).await;
        let calls = store.calls(Operation::Release);
        send(&app, &payment()).await.assert_charge(1);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(store.calls(Operation::Release), calls, "it has ended");
    });
}

#[test]
fn a_waiter_whose_client_leaves_while_its_claim_is_in_doubt_leaves_no_claim_behind() {
    with_each_adapter(async |adapter| {
        // Given an execution here, and a duplicate there that waits after an acquire that is late.
        let shared = MemoryStore::new();
        let (_, here) = process(&shared, &Policy::new());
        let (store, there) = process(&shared, &Policy::new());
        let handler = CountingHandler::with_first_status(429);
        let (here, there) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        let first = send_in_task(&here, &payment());
        handler.started(1).await;
        let late = closed();
        store.fail_next(Operation::Acquire, Fault::Late(Arc::clone(&late)));
        let waiter = send_in_task(&there, &payment());
        run_ready_tasks().await;
        advance(Duration::from_secs(1)).await;

        // When its client leaves, the execution releases the key, and the late acquire arrives.
        waiter.abort();
        run_ready_tasks().await;
        handler.open_gate();
        assert_eq!(first.await.unwrap().status, 429);
        arrives(&late).await;

        // Then the key is not blocked.
        send(&there, &payment()).await.assert_charge(2);
    });
}

#[test]
fn a_release_that_is_not_acknowledged_goes_on_in_the_background() {
    with_each_adapter(async |adapter| {
        let (store, engine) = process(&MemoryStore::new(), &no_wait());
        let handler = CountingHandler::with_first_status(429);
        let app = adapter.app(&engine, &handler);
        store.fail_always(Operation::Release, Fault::Unreachable);
        assert_eq!(send(&app, &payment()).await.status, 429);
        store.heal();
        advance(Duration::from_secs(60)).await;
        send(&app, &payment()).await.assert_charge(2);
    });
}

#[test]
fn a_claim_whose_answer_is_read_after_its_lease_starts_nothing() {
    with_each_adapter(async |adapter| {
        for ttl in [Duration::from_secs(3600), Duration::from_secs(1)] {
            // Given an acquire whose answer is read when its lease has lapsed and, with the short ttl, its record expired.
            let shared = MemoryStore::new();
            let policy = no_wait().lease(LEASE).ttl(ttl);
            let store = FaultyStore::over(shared.clone());
            let here = Idempotency::builder()
                .store(store.clone())
                .policy(policy.clone())
                .store_timeout(LEASE * 10);
            let (_, there) = process(&shared, &policy);
            let handler = CountingHandler::new();
            let here = adapter.app(&here.build().unwrap(), &handler);
            let there = adapter.app(&there, &handler);
            let answer = closed();
            store.fail_next(Operation::Acquire, Fault::HoldReply(Arc::clone(&answer)));
            let slow = send_in_task(&here, &payment());
            run_ready_tasks().await;
            advance(LEASE + Duration::from_secs(2)).await;

            // When another process executes meanwhile, which it can once the record has expired.
            let expired = ttl < LEASE;
            if expired {
                send(&there, &payment()).await.assert_charge(1);
            }
            answer.add_permits(1);

            // Then the late request starts no handler, and its client is asked to retry.
            slow.await.unwrap().assert_problem(503, "overloaded");
            assert_eq!(handler.starts(), usize::from(expired));

            // And it gave back what was its own: the retry executes, or replays.
            let retry = send(&there, &payment()).await;
            if expired {
                retry.assert_replay_of_charge(1);
            } else {
                retry.assert_charge(1);
            }
        }
    });
}

#[test]
fn a_recovery_function_is_not_asked_by_a_take_over_whose_answer_is_read_after_its_lease() {
    with_each_adapter(async |adapter| {
        // Given a crashed execution, and a retry that takes it over and reads the store's answer after its lease.
        let shared = MemoryStore::new();
        let policy = no_wait().lease(LEASE).on_crash(OnCrash::Recover(|_| {
            let found = http::Response::new(bytes::Bytes::from_static(b"found"));
            Box::pin(async { Recovery::Completed(found) })
        }));
        let handler = CountingHandler::new();
        let dying = Idempotency::builder().policy(policy.clone());
        handler.close_gate();
        crash(adapter, dying, shared.clone(), &payment(), &handler).await;
        handler.open_gate();
        advance(LEASE * 2).await;
        let store = FaultyStore::over(shared);
        let engine = Idempotency::builder()
            .store(store.clone())
            .policy(policy)
            .store_timeout(LEASE * 10);
        let app = adapter.app(&engine.build().unwrap(), &handler);
        let answers = [closed(), closed()];
        for answer in &answers {
            let held = Fault::HoldReply(Arc::clone(answer));
            store.fail_next(Operation::Acquire, held);
        }
        let slow = send_in_task(&app, &payment());
        run_ready_tasks().await;
        answers[0].add_permits(1);
        run_ready_tasks().await;
        advance(LEASE + Duration::from_secs(2)).await;
        answers[1].add_permits(1);

        // Then it asks nothing, and what crashed stays crashed: the next retry asks.
        slow.await.unwrap().assert_problem(503, "overloaded");
        let asked = send(&app, &payment()).await;
        assert_eq!(&asked.body[..], b"found");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_process_does_not_take_over_a_lease_of_its_own() {
    with_each_adapter(async |adapter| {
        // Given a request whose acquire was applied and whose answers are lost, so that its lease lapses while it is
        // being withdrawn, which the store does not take.
        let policy = no_wait()
            .lease(Duration::from_secs(1))
            .on_crash(OnCrash::Retry);
        let (store, engine) = process(&MemoryStore::new(), &policy);
        let handler = CountingHandler::new();
        let app = adapter.app(&engine, &handler);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        store.fail_always(Operation::Release, Fault::Unreachable);
        send(&app, &payment())
            .await
            .assert_problem(503, "store_unavailable");
        advance(Duration::from_secs(5)).await;

        // When a duplicate finds the lapsed lease, then it does not take it over.
        send(&app, &payment()).await.assert_problem(409, "conflict");
        assert_eq!(handler.starts(), 0);

        // And when the claim has been given back, the retry executes as the first attempt.
        store.heal();
        advance(Duration::from_secs(60)).await;
        send(&app, &payment()).await.assert_charge(1);
        assert_eq!(handler.attempts(), [1]);
    });
}

#[test]
fn duplicates_follow_an_execution_of_their_process_past_the_expiry_of_its_record() {
    with_each_adapter(async |adapter| {
        for on_crash in [OnCrash::Refuse, OnCrash::Retry] {
            // Given an execution whose renewals are not applied, so that its record has expired.
            let policy = Policy::new()
                .lease(LEASE)
                .ttl(LEASE)
                .wait_timeout(Duration::from_secs(3600))
                .on_crash(on_crash);
            let (store, engine) = process(&MemoryStore::new(), &policy);
            let handler = CountingHandler::new();
            let app = adapter.app(&engine, &handler);
            store.fail_always(Operation::Renew, Fault::Unreachable);
            handler.close_gate();
            let first = send_in_task(&app, &payment());
            handler.started(1).await;
            advance(LEASE * 4).await;

            // When a duplicate arrives, then it sends no acquire and waits.
            let acquires = store.calls(Operation::Acquire);
            let duplicate = send_in_task(&app, &payment());
            run_ready_tasks().await;
            advance(Duration::from_secs(5)).await;
            assert!(!duplicate.is_finished());
            assert_eq!(store.calls(Operation::Acquire), acquires);

            // And it gets the outcome of the execution.
            store.heal();
            handler.open_gate();
            first.await.unwrap().assert_charge(1);
            duplicate.await.unwrap().assert_replay_of_charge(1);
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn the_attempt_after_a_second_one_that_released_is_the_third() {
    with_each_adapter(async |adapter| {
        // Given an execution that panicked, whose route executes again, and a retry that asks to be sent again.
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let (_, engine) = process(&MemoryStore::new(), &policy);
        let handler = CountingHandler::responding(|n| match n {
            1 => panic!("the first execution"),
            2 => StatusCode::TOO_MANY_REQUESTS.into_response(),
            n => (StatusCode::CREATED, format!("charge {n}")).into_response(),
        });
        let app = adapter.app(&engine, &handler);
        send(&app, &payment())
            .await
            .assert_problem(500, "handler_panicked");
        assert_eq!(send(&app, &payment()).await.status, 429);
        send(&app, &payment()).await.assert_charge(3);
        assert_eq!(handler.attempts(), [1, 2, 3]);
    });
}

#[test]
fn a_release_that_was_applied_and_is_fenced_when_repeated_gives_its_own_answer() {
    with_each_adapter(async |adapter| {
        // Given a release whose reply is lost, and another request that claims the key before the repetition.
        let shared = MemoryStore::new();
        let (store, here) = process(&shared, &no_wait());
        let (_, there) = process(&shared, &no_wait());
        let handler = CountingHandler::with_first_status(429);
        let (here, there) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        let repetition = closed();
        store.fail_next(Operation::Release, Fault::ReplyLost);
        store.fail_next(
            Operation::Release,
            Fault::HoldRequest(Arc::clone(&repetition)),
        );
        let first = send_in_task(&here, &payment());
        handler.started(1).await;
        run_ready_tasks().await;
        advance(Duration::from_millis(500)).await;
        handler.close_gate();
        let second = send_in_task(&there, &payment());
        handler.started(2).await;

        // When the repetition is fenced, then the first client still gets what its own execution answered.
        repetition.add_permits(1);
        assert_eq!(first.await.unwrap().status, 429);
        handler.open_gate();
        second.await.unwrap().assert_charge(2);
    });
}

#[test]
fn everybody_hears_the_same_while_an_outcome_is_not_stored_and_replays_it_later() {
    with_each_adapter(async |adapter| {
        for outage in [Fault::Unreachable, Fault::Hang] {
            // Given an execution with a waiter, and a store that takes no completion.
            let policy = Policy::new().wait_timeout(Duration::from_secs(3600));
            let (store, engine) = process(&MemoryStore::new(), &policy);
            let handler = CountingHandler::new();
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            let first = send_in_task(&app, &payment());
            handler.started(1).await;
            let waiter = send_in_task(&app, &payment());
            run_ready_tasks().await;
            store.fail_always(Operation::Complete, outage);
            handler.open_gate();

            // Then its client, the waiter and later duplicates all hear that the outcome is unknown, and one that asks for
            // something else hears that.
            advance(Duration::from_secs(20)).await;
            first.await.unwrap().assert_problem(409, "outcome_unknown");
            waiter.await.unwrap().assert_problem(409, "outcome_unknown");
            send(&app, &payment())
                .await
                .assert_problem(409, "outcome_unknown");
            send(&app, &payment().body("{}"))
                .await
                .assert_problem(409, "mismatch");
            assert_eq!(handler.starts(), 1);

            // And when the store is back, all replay the outcome.
            store.heal();
            advance(Duration::from_secs(60)).await;
            send(&app, &payment()).await.assert_replay_of_charge(1);
        }
    });
}

#[test]
fn an_outcome_that_comes_after_the_lifetime_is_stored_as_patiently_as_any_other() {
    with_each_adapter(async |adapter| {
        // Given an execution of 16 minutes, and a store that is away for 20 seconds at its end.
        let (store, engine) = process(&MemoryStore::new(), &no_wait());
        let handler = CountingHandler::new();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        advance(Duration::from_secs(16 * 60)).await;
        store.fail_always(Operation::Complete, Fault::Unreachable);
        handler.open_gate();
        advance(Duration::from_secs(20)).await;
        first.await.unwrap().assert_problem(409, "outcome_unknown");

        // When the store is back, then the outcome is stored and replayed.
        store.heal();
        advance(Duration::from_secs(60)).await;
        send(&app, &payment()).await.assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1);
    });
}
