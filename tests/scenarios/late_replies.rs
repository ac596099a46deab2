//! Replies that come too late: whoever got the key meanwhile executes, and nobody else (contract, sections 4 and 9;
//! invariants I1, I2).

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

/// A desk at which a recovery function learns that nothing was executed, as soon as there is a permit.
type Desk = Arc<Semaphore>;

async fn inquire(crash: Crash) -> Recovery {
    let desk: &Desk = crash.request().extensions().get().unwrap();
    desk.acquire().await.unwrap().forget();
    Recovery::NotExecuted
}

fn inquiring() -> Policy {
    Policy::new()
        .wait(false)
        .on_crash(OnCrash::Recover(|crash| Box::pin(inquire(crash))))
}

/// A retry that asks, under a lease that has lapsed, what became of an execution that vanished.
struct Asking {
    handler: CountingHandler,
    store: FaultyStore,
    desk: Desk,
    retry: JoinHandle<TestResponse>,
    /// The app of another process, whose recovery function is told at once.
    other: Router,
}

impl Asking {
    async fn begin(adapter: Adapter) -> Self {
        let (handler, records) = (CountingHandler::new(), MemoryStore::new());
        let store = FaultyStore::over(records.clone());
        let engine = Idempotency::builder().policy(inquiring());
        let here = engine.store(store.clone()).build().unwrap();
        let engine = Idempotency::builder().policy(inquiring());
        let there = engine.store(records).build().unwrap();
        let (desk, open) = (Desk::new(Semaphore::new(0)), Desk::new(Semaphore::new(9)));
        let app = adapter.app(&here, &handler).layer(Extension(desk.clone()));
        let other = adapter.app(&there, &handler).layer(Extension(open));
        handler.close_gate();
        crash(&app, &payment(), &handler).await;
        handler.open_gate();
        advance(LEASE * 2).await;
        store.fail_always(Operation::Renew, Fault::Unreachable);
        let retry = send_in_task(&app, &payment());
        advance(LEASE * 2).await;
        assert!(!retry.is_finished(), "it still asks");
        Self {
            handler,
            store,
            desk,
            retry,
            other,
        }
    }

    /// The function learns that nothing was executed, before any time passes.
    async fn learn(&self) {
        self.desk.add_permits(1);
        run_ready_tasks().await;
    }
}

#[test]
fn a_recovery_function_that_outlived_its_lease_does_not_execute_what_another_retry_executed() {
    with_each_adapter(async |adapter| {
        // Given a retry that asks for longer than its lease, while its heartbeats do not arrive.
        for store_is_back in [false, true] {
            let late = Asking::begin(adapter).await;

            // When another retry takes over, is told at once, and executes.
            send(&late.other, &payment()).await.assert_charge(2);
            if store_is_back {
                late.store.heal();
            }
            late.learn().await;

            // Then "not executed" is stale, and the answer is the winner's.
            late.retry.await.unwrap().assert_replay_of_charge(2);
            send(&late.other, &payment())
                .await
                .assert_replay_of_charge(2);
            assert_eq!(
                late.handler.starts(),
                2,
                "the one that vanished and one more"
            );
        }
    });
}

#[test]
fn a_recovery_function_that_outlived_its_lease_executes_if_nobody_took_over() {
    with_each_adapter(async |adapter| {
        let late = Asking::begin(adapter).await;
        late.store.heal();
        let renewed = late.store.calls(Operation::Renew);
        late.learn().await;

        // Then the store is asked once more, and says that the key is still this retry's.
        assert_eq!(late.store.calls(Operation::Renew), renewed + 1);
        late.retry.await.unwrap().assert_charge(2);
        send(&late.other, &payment())
            .await
            .assert_replay_of_charge(2);
        assert_eq!(late.handler.starts(), 2);
    });
}

#[test]
fn a_recovery_function_that_outlived_its_lease_does_not_execute_while_nobody_can_say_whose_the_key_is()
 {
    with_each_adapter(async |adapter| {
        let late = Asking::begin(adapter).await;
        late.learn().await;
        advance(Duration::from_secs(3)).await;
        late.retry.await.unwrap().assert_problem(503, "overloaded");
        assert_eq!(late.handler.starts(), 1);

        // And the next retry asks, and executes.
        send(&late.other, &payment()).await.assert_charge(2);
    });
}

/// A claim whose acknowledgement is under way for longer than its lease.
struct Claiming {
    handler: CountingHandler,
    acknowledged: Arc<Semaphore>,
    request: JoinHandle<TestResponse>,
    /// The app of another process.
    other: Router,
}

impl Claiming {
    /// Of a key that is new, or that an execution left that vanished.
    async fn begin(adapter: Adapter, on_crash: OnCrash, vanished: bool) -> Self {
        let (handler, records) = (CountingHandler::new(), MemoryStore::new());
        let store = FaultyStore::over(records.clone());
        let lease = Duration::from_secs(1);
        let policy = Policy::new().wait(false).lease(lease).on_crash(on_crash);
        let engine = Idempotency::builder()
            .policy(policy.clone())
            .store(store.clone());
        let engine = engine.store_timeout(Duration::from_secs(60));
        let told = Desk::new(Semaphore::new(9));
        let here = adapter.app(&engine.build().unwrap(), &handler);
        let here = here.layer(Extension(told.clone()));
        let engine = Idempotency::builder().policy(policy).store(records);
        let other = adapter.app(&engine.build().unwrap(), &handler);
        let other = other.layer(Extension(told));
        if vanished {
            handler.close_gate();
            crash(&other, &payment(), &handler).await;
            handler.open_gate();
            advance(lease * 2).await;
        }
        let acknowledged = Arc::new(Semaphore::new(0));
        if vanished && matches!(on_crash, OnCrash::Recover(_)) {
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

/// The ways in which somebody else can get the key after a lease.
fn take_overs() -> [(OnCrash, bool); 4] {
    let recover = OnCrash::Recover(|crash| Box::pin(inquire(crash)));
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
        for (on_crash, vanished) in take_overs() {
            // Given a claim whose lease lapses before the store's reply arrives.
            let late = Claiming::begin(adapter, on_crash, vanished).await;
            let before = usize::from(vanished);

            // When another takes the key over and executes, and then the reply arrives.
            send(&late.other, &payment())
                .await
                .assert_charge(before + 1);
            late.acknowledged.add_permits(1);

            // Then the answer is the winner's.
            let answer = late.request.await.unwrap();
            answer.assert_replay_of_charge(before + 1);
            assert_eq!(late.handler.starts(), before + 1, "{on_crash:?}");
        }
    });
}

#[test]
fn a_claim_acknowledged_after_its_lease_executes_if_nobody_took_over() {
    with_each_adapter(async |adapter| {
        for (on_crash, vanished) in take_overs().into_iter().chain([(OnCrash::Refuse, false)]) {
            let late = Claiming::begin(adapter, on_crash, vanished).await;
            let before = usize::from(vanished);
            late.acknowledged.add_permits(1);
            late.request.await.unwrap().assert_charge(before + 1);
            send(&late.other, &payment())
                .await
                .assert_replay_of_charge(before + 1);
            assert_eq!(late.handler.starts(), before + 1, "{on_crash:?}");
        }
    });
}
