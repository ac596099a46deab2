//! Claims, polls and recoveries that are on their way when the deadline of a shutdown passes (DESIGN.md, section 4;
//! invariants I2, I10).

use std::{sync::Arc, time::Duration};

use axum::Extension;
use idempotent_runtime::{Crash, Idempotency, MemoryStore, OnCrash, Policy, Recovery};
use tokio::sync::Semaphore;

use crate::support::{
    CountingHandler, Fault, FaultyStore, Operation, TestRequest, advance, crash, run_ready_tasks,
    send, send_in_task, with_each_adapter,
};

/// A recovery function that answers "not executed" as soon as it gets a permit.
async fn recover(crash: Crash) -> Recovery {
    let permits: &Arc<Semaphore> = crash.request().extensions().get().unwrap();
    permits.acquire().await.unwrap().forget();
    Recovery::NotExecuted
}

#[test]
fn a_claim_that_is_acknowledged_after_the_deadline_starts_nothing() {
    with_each_adapter(async |adapter| {
        let recover = OnCrash::Recover(|crash| Box::pin(recover(crash)));
        for (on_crash, crashed) in [
            (OnCrash::Refuse, false),
            (OnCrash::Retry, false),
            (OnCrash::Retry, true),
            (recover, true),
        ] {
            for fault in [Fault::HoldRequest, Fault::HoldReply] {
                // Given a claim, of a new key or of a crashed execution's, whose acquire is on its way.
                let (handler, records) = (CountingHandler::new(), MemoryStore::new());
                let store = FaultyStore::over(records.clone());
                let policy = Policy::new().wait(false).on_crash(on_crash);
                let engine = Idempotency::builder().policy(policy.clone());
                let engine = engine.store(store.clone()).build().unwrap();
                let dying = Idempotency::builder().policy(policy.clone());
                let other = Idempotency::builder().policy(policy).store(records.clone());
                let recovery = Arc::new(Semaphore::new(9));
                let app = adapter
                    .app(&engine, &handler)
                    .layer(Extension(recovery.clone()));
                let other = adapter.app(&other.build().unwrap(), &handler);
                let other = other.layer(Extension(recovery.clone()));
                if crashed {
                    handler.close_gate();
                    let payment = TestRequest::payment("k");
                    crash(adapter, dying, records, &payment, &handler).await;
                    handler.open_gate();
                    advance(Duration::from_secs(31)).await;
                    // The first acquire shows the crash, the second takes over.
                    store.fail_next(Operation::Acquire, Fault::None);
                }
                let permits = Arc::new(Semaphore::new(0));
                store.fail_next(Operation::Acquire, fault(permits.clone()));
                let request = send_in_task(&app, &TestRequest::payment("k"));
                run_ready_tasks().await;

                // When the deadline passes before the store has acknowledged it.
                let report = engine.shutdown(Duration::from_millis(1)).await;
                permits.add_permits(1);

                // Then nothing was executed or counted.
                let answer = request.await.unwrap();
                answer.assert_problem(503, "overloaded");
                assert!(answer.headers.contains_key("retry-after"));
                assert_eq!((report.drained, report.unconfirmed), (0, 0));
                let before = usize::from(crashed);
                assert_eq!(handler.starts(), before);
                assert_eq!(
                    recovery.available_permits(),
                    9,
                    "no recovery function was called"
                );

                // And the next process executes at once.
                send(&other, &TestRequest::payment("k"))
                    .await
                    .assert_charge(before + 1);
            }
        }
    });
}

#[test]
fn a_waiter_whose_acquire_is_acknowledged_after_the_deadline_starts_nothing() {
    with_each_adapter(async |adapter| {
        // Given a waiter whose acquire got a released key, while the store's reply is on its way.
        let (handler, records) = (CountingHandler::with_first_status(429), MemoryStore::new());
        let store = FaultyStore::over(records.clone());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let other = Idempotency::builder().store(records).build().unwrap();
        let (app, other) = (
            adapter.app(&engine, &handler),
            adapter.app(&other, &handler),
        );
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        let waiter = send_in_task(&app, &TestRequest::payment("k"));
        run_ready_tasks().await;
        let acquires = store.calls(Operation::Acquire);
        let permits = Arc::new(Semaphore::new(0));
        store.fail_next(Operation::Acquire, Fault::HoldReply(permits.clone()));
        handler.open_gate();
        assert_eq!(first.await.unwrap().status, 429);
        run_ready_tasks().await;
        assert_eq!(
            store.calls(Operation::Acquire),
            acquires + 1,
            "the waiter polls"
        );

        // When the deadline passes before the reply arrives.
        let report = engine.shutdown(Duration::from_millis(1)).await;
        assert_eq!((report.drained, report.unknown), (0, 0));
        permits.add_permits(1);

        // Then it executes nothing, and the next process does.
        waiter.await.unwrap().assert_problem(503, "overloaded");
        assert_eq!(handler.starts(), 1);
        send(&other, &TestRequest::payment("k"))
            .await
            .assert_charge(2);
    });
}

#[test]
fn a_recovery_function_that_still_runs_at_the_deadline_starts_nothing() {
    with_each_adapter(async |adapter| {
        for other_is_faster in [true, false] {
            // Given a retry whose recovery function has not answered yet.
            let handler = CountingHandler::new();
            let (store, payment) = (MemoryStore::new(), TestRequest::payment("k"));
            let builder = || {
                let recover = OnCrash::Recover(|crash| Box::pin(recover(crash)));
                Idempotency::builder().policy(Policy::new().wait(false).on_crash(recover))
            };
            handler.close_gate();
            crash(adapter, builder(), store.clone(), &payment, &handler).await;
            handler.open_gate();
            advance(Duration::from_secs(31)).await;
            let [here, other] = [(); 2].map(|()| builder().store(store.clone()).build().unwrap());
            let recovery = Arc::new(Semaphore::new(0));
            let app = adapter
                .app(&here, &handler)
                .layer(Extension(recovery.clone()));
            let enough = Arc::new(Semaphore::new(9));
            let other = adapter.app(&other, &handler).layer(Extension(enough));
            let retry = send_in_task(&app, &TestRequest::payment("k"));
            run_ready_tasks().await;

            // When the deadline passes before it answers "not executed".
            let report = here.shutdown(Duration::from_millis(1)).await;
            assert_eq!((report.drained, report.unknown), (0, 1));
            if other_is_faster {
                send(&other, &TestRequest::payment("k"))
                    .await
                    .assert_charge(2);
            }
            recovery.add_permits(1);
            let answer = retry.await.unwrap();

            // Then only the next process executes.
            answer.assert_problem(503, "overloaded");
            if other_is_faster {
                send(&other, &TestRequest::payment("k"))
                    .await
                    .assert_replay_of_charge(2);
            } else {
                send(&other, &TestRequest::payment("k"))
                    .await
                    .assert_charge(2);
            }
            assert_eq!(handler.starts(), 2);
        }
    });
}
