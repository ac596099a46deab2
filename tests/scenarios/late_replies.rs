//! Replies that arrive after the lease has lapsed: nothing starts then, whether or not the key has another owner
//! (DESIGN.md, sections 4 and 9; invariants I1, I2).

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router};
use idempotent_runtime::{Crash, Idempotency, MemoryStore, OnCrash, Policy, Recovery};
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Operation, TestRequest, TestResponse, advance,
    crash, run_ready_tasks, send, send_in_task, with_each_adapter,
};

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

/// A recovery function answers that nothing was executed as soon as it gets one of these permits.
type Permits = Arc<Semaphore>;

async fn recover(crash: Crash) -> Recovery {
    let permits: &Permits = crash.request().extensions().get().unwrap();
    permits.acquire().await.unwrap().forget();
    Recovery::NotExecuted
}

fn recovering() -> Policy {
    Policy::new()
        .wait(false)
        .on_crash(OnCrash::Recover(|crash| Box::pin(recover(crash))))
}

/// A retry whose recovery function still runs, under a lease that has lapsed.
struct SlowRecovery {
    handler: CountingHandler,
    store: FaultyStore,
    permits: Permits,
    retry: JoinHandle<TestResponse>,
    /// The app of another process, whose recovery function answers at once.
    other: Router,
}

impl SlowRecovery {
    async fn begin(adapter: Adapter) -> Self {
        let (handler, records) = (CountingHandler::new(), MemoryStore::new());
        let store = FaultyStore::over(records.clone());
        let builder = || Idempotency::builder().policy(recovering());
        let here = builder().store(store.clone()).build().unwrap();
        let there = builder().store(records.clone()).build().unwrap();
        let (permits, enough) = (
            Permits::new(Semaphore::new(0)),
            Permits::new(Semaphore::new(9)),
        );
        let app = adapter
            .app(&here, &handler)
            .layer(Extension(permits.clone()));
        let other = adapter.app(&there, &handler).layer(Extension(enough));
        handler.close_gate();
        crash(adapter, builder(), records, &payment(), &handler).await;
        handler.open_gate();
        advance(LEASE * 2).await;
        store.fail_always(Operation::Renew, Fault::Unreachable);
        let retry = send_in_task(&app, &payment());
        advance(LEASE * 2).await;
        assert!(!retry.is_finished(), "its recovery function still runs");
        Self {
            handler,
            store,
            permits,
            retry,
            other,
        }
    }

    /// Lets the recovery function answer "not executed", without moving the clock.
    async fn let_recovery_answer(&self) {
        self.permits.add_permits(1);
        run_ready_tasks().await;
    }
}

#[test]
fn a_recovery_function_that_outlived_its_lease_does_not_execute_what_another_retry_executed() {
    with_each_adapter(async |adapter| {
        // Given a retry whose recovery function outlives its lease, because its heartbeats do not arrive.
        for store_is_back in [false, true] {
            let slow = SlowRecovery::begin(adapter).await;

            // When another retry takes over, recovers at once, and executes.
            send(&slow.other, &payment()).await.assert_charge(2);
            if store_is_back {
                slow.store.heal();
            }
            slow.let_recovery_answer().await;

            // Then the first one's "not executed" is stale: it executes nothing, and says so.
            slow.retry.await.unwrap().assert_problem(503, "overloaded");
            send(&slow.other, &payment())
                .await
                .assert_replay_of_charge(2);
            assert_eq!(
                slow.handler.starts(),
                2,
                "the crashed execution and one more"
            );
        }
    });
}

#[test]
fn a_recovery_function_that_outlived_its_lease_does_not_execute_even_if_nobody_took_over() {
    with_each_adapter(async |adapter| {
        let slow = SlowRecovery::begin(adapter).await;
        slow.store.heal();
        let renewed = slow.store.calls(Operation::Renew);
        slow.let_recovery_answer().await;

        // Then no renewal is tried to rescue the claim: it is given back.
        assert_eq!(slow.store.calls(Operation::Renew), renewed);
        slow.retry.await.unwrap().assert_problem(503, "overloaded");
        assert_eq!(slow.handler.starts(), 1);

        // And the next retry recovers and executes at once, with a higher attempt than the recovery's.
        send(&slow.other, &payment()).await.assert_charge(2);
        assert_eq!(slow.handler.attempts(), [1, 3]);
    });
}

#[test]
fn a_recovery_function_that_outlived_its_lease_does_not_execute_even_if_it_was_renewed_again() {
    with_each_adapter(async |adapter| {
        // Given a lease that lapsed, that nobody took over, and that a heartbeat renews when the store is back.
        let slow = SlowRecovery::begin(adapter).await;
        slow.store.heal();
        advance(LEASE / 2).await;

        // When the recovery function answers "not executed", then the handler does not execute.
        slow.let_recovery_answer().await;
        slow.retry.await.unwrap().assert_problem(503, "overloaded");
        assert_eq!(slow.handler.starts(), 1);

        // And the next retry asks again, and executes.
        send(&slow.other, &payment()).await.assert_charge(2);
    });
}

#[test]
fn a_recovery_function_that_outlived_its_lease_does_not_execute_while_the_store_is_unreachable() {
    with_each_adapter(async |adapter| {
        let slow = SlowRecovery::begin(adapter).await;
        slow.let_recovery_answer().await;
        advance(Duration::from_secs(3)).await;
        slow.retry.await.unwrap().assert_problem(503, "overloaded");
        assert_eq!(slow.handler.starts(), 1);

        // And the next retry recovers, and executes.
        send(&slow.other, &payment()).await.assert_charge(2);
    });
}

/// A claim whose acknowledgement takes longer than its lease.
struct SlowAcknowledgement {
    handler: CountingHandler,
    acknowledged: Arc<Semaphore>,
    request: JoinHandle<TestResponse>,
    /// The app of another process.
    other: Router,
}

impl SlowAcknowledgement {
    /// Claims a new key, or one that a crashed execution left behind.
    async fn begin(adapter: Adapter, on_crash: OnCrash, crashed: bool) -> Self {
        let (handler, records) = (CountingHandler::new(), MemoryStore::new());
        let store = FaultyStore::over(records.clone());
        let lease = Duration::from_secs(1);
        let policy = Policy::new().wait(false).lease(lease).on_crash(on_crash);
        let engine = Idempotency::builder()
            .policy(policy.clone())
            .store(store.clone());
        let dying = Idempotency::builder().policy(policy.clone());
        let engine = engine.store_timeout(Duration::from_secs(60));
        let enough = Permits::new(Semaphore::new(9));
        let here = adapter.app(&engine.build().unwrap(), &handler);
        let here = here.layer(Extension(enough.clone()));
        let engine = Idempotency::builder().policy(policy).store(records.clone());
        let other = adapter.app(&engine.build().unwrap(), &handler);
        let other = other.layer(Extension(enough));
        if crashed {
            handler.close_gate();
            crash(adapter, dying, records, &payment(), &handler).await;
            handler.open_gate();
            advance(lease * 2).await;
        }
        let acknowledged = Arc::new(Semaphore::new(0));
        if crashed {
            // The first acquire shows the crash, the second takes over.
            store.fail_next(Operation::Acquire, Fault::None);
        }
        store.fail_next(Operation::Acquire, Fault::HoldReply(acknowledged.clone()));
        let request = send_in_task(&here, &payment());
        advance(lease * 2).await;
        assert!(!request.is_finished());
        Self {
            handler,
            acknowledged,
            request,
            other,
        }
    }
}

/// The ways in which another request can get the key once the lease has lapsed.
fn take_overs() -> [(OnCrash, bool); 4] {
    let recover = OnCrash::Recover(|crash| Box::pin(recover(crash)));
    [
        (OnCrash::Retry, true),
        (OnCrash::Retry, false),
        (recover, true),
        (recover, false),
    ]
}

#[test]
fn a_claim_acknowledged_after_another_took_over_does_not_execute() {
    with_each_adapter(async |adapter| {
        for (on_crash, crashed) in take_overs() {
            // Given a claim whose lease lapses before the store's reply arrives.
            let slow = SlowAcknowledgement::begin(adapter, on_crash, crashed).await;
            let before = usize::from(crashed);

            // When another request takes the key over and executes, and then the reply arrives.
            send(&slow.other, &payment())
                .await
                .assert_charge(before + 1);
            slow.acknowledged.add_permits(1);

            // Then the first one executes nothing, and says so; retries get the other's outcome.
            let answer = slow.request.await.unwrap();
            answer.assert_problem(503, "overloaded");
            send(&slow.other, &payment())
                .await
                .assert_replay_of_charge(before + 1);
            assert_eq!(slow.handler.starts(), before + 1, "{on_crash:?}");
        }
    });
}

#[test]
fn a_claim_acknowledged_after_its_lease_is_given_back_even_if_nobody_took_over() {
    with_each_adapter(async |adapter| {
        for (on_crash, crashed) in take_overs().into_iter().chain([(OnCrash::Refuse, false)]) {
            let slow = SlowAcknowledgement::begin(adapter, on_crash, crashed).await;
            let before = usize::from(crashed);
            slow.acknowledged.add_permits(1);
            slow.request
                .await
                .unwrap()
                .assert_problem(503, "overloaded");
            assert_eq!(slow.handler.starts(), before, "{on_crash:?}");

            // Then a retry executes at once.
            send(&slow.other, &payment())
                .await
                .assert_charge(before + 1);
            assert_eq!(slow.handler.starts(), before + 1, "{on_crash:?}");
        }
    });
}
