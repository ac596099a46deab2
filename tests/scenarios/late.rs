//! Replies that come too late: whoever got the key meanwhile executes, and nobody else (contract, sections 4 and 9;
//! invariants I1, I2).

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router};
use idempotent_runtime::{Crash, Idempotency, MemoryStore, OnCrash, Policy, Recovery};
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::support::{
    Answer, Ask, Face, Fault, Faulty, Till, Verb, ask, asking, both, crash, pass, settle,
};

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> Ask {
    Ask::pay("k")
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
    till: Till,
    store: Faulty,
    desk: Desk,
    retry: JoinHandle<Answer>,
    /// The shop of another process, whose recovery function is told at once.
    other: Router,
}

impl Asking {
    async fn begin(face: Face) -> Self {
        let (till, records) = (Till::new(), MemoryStore::new());
        let store = Faulty::over(records.clone());
        let engine = Idempotency::builder().policy(inquiring());
        let here = engine.store(store.clone()).build().unwrap();
        let engine = Idempotency::builder().policy(inquiring());
        let there = engine.store(records).build().unwrap();
        let (desk, open) = (Desk::new(Semaphore::new(0)), Desk::new(Semaphore::new(9)));
        let shop = face.shop(&here, &till).layer(Extension(desk.clone()));
        let other = face.shop(&there, &till).layer(Extension(open));
        till.hold();
        crash(&shop, &payment(), &till).await;
        till.open();
        pass(LEASE * 2).await;
        store.always(Verb::Renew, Fault::Down);
        let retry = asking(&shop, &payment());
        pass(LEASE * 2).await;
        assert!(!retry.is_finished(), "it still asks");
        Self {
            till,
            store,
            desk,
            retry,
            other,
        }
    }

    /// The function learns that nothing was executed, before any time passes.
    async fn learn(&self) {
        self.desk.add_permits(1);
        settle().await;
    }
}

#[test]
fn a_recovery_function_that_outlived_its_lease_does_not_execute_what_another_retry_executed() {
    both(async |face| {
        // Given a retry that asks for longer than its lease, while its heartbeats do not arrive.
        for store_is_back in [false, true] {
            let late = Asking::begin(face).await;

            // When another retry takes over, is told at once, and executes.
            ask(&late.other, &payment()).await.is_charge(2);
            if store_is_back {
                late.store.heal();
            }
            late.learn().await;

            // Then "not executed" is stale, and the answer is the winner's.
            late.retry.await.unwrap().is_replay_of_charge(2);
            ask(&late.other, &payment()).await.is_replay_of_charge(2);
            assert_eq!(late.till.starts(), 2, "the one that vanished and one more");
        }
    });
}

#[test]
fn a_recovery_function_that_outlived_its_lease_executes_if_nobody_took_over() {
    both(async |face| {
        let late = Asking::begin(face).await;
        late.store.heal();
        let renewed = late.store.calls(Verb::Renew);
        late.learn().await;

        // Then the store is asked once more, and says that the key is still this retry's.
        assert_eq!(late.store.calls(Verb::Renew), renewed + 1);
        late.retry.await.unwrap().is_charge(2);
        ask(&late.other, &payment()).await.is_replay_of_charge(2);
        assert_eq!(late.till.starts(), 2);
    });
}

#[test]
fn a_recovery_function_that_outlived_its_lease_does_not_execute_while_nobody_can_say_whose_the_key_is()
 {
    both(async |face| {
        let late = Asking::begin(face).await;
        late.learn().await;
        pass(Duration::from_secs(3)).await;
        late.retry.await.unwrap().is_problem(503, "overloaded");
        assert_eq!(late.till.starts(), 1);

        // And the next retry asks, and executes.
        ask(&late.other, &payment()).await.is_charge(2);
    });
}

/// A claim whose acknowledgement is under way for longer than its lease.
struct Claiming {
    till: Till,
    acknowledged: Arc<Semaphore>,
    request: JoinHandle<Answer>,
    /// The shop of another process.
    other: Router,
}

impl Claiming {
    /// Of a key that is new, or that an execution left that vanished.
    async fn begin(face: Face, on_crash: OnCrash, vanished: bool) -> Self {
        let (till, records) = (Till::new(), MemoryStore::new());
        let store = Faulty::over(records.clone());
        let lease = Duration::from_secs(1);
        let policy = Policy::new().wait(false).lease(lease).on_crash(on_crash);
        let engine = Idempotency::builder().policy(policy).store(store.clone());
        let engine = engine.store_timeout(Duration::from_secs(60));
        let told = Desk::new(Semaphore::new(9));
        let here = face.shop(&engine.build().unwrap(), &till);
        let here = here.layer(Extension(told.clone()));
        let engine = Idempotency::builder().policy(policy).store(records);
        let other = face.shop(&engine.build().unwrap(), &till);
        let other = other.layer(Extension(told));
        if vanished {
            till.hold();
            crash(&other, &payment(), &till).await;
            till.open();
            pass(lease * 2).await;
        }
        let acknowledged = Arc::new(Semaphore::new(0));
        if vanished && matches!(on_crash, OnCrash::Recover(_)) {
            // The first acquire shows the crash, the second takes over.
            store.next(Verb::Acquire, Fault::None);
        }
        store.next(Verb::Acquire, Fault::LateReply(acknowledged.clone()));
        let request = asking(&here, &payment());
        pass(lease * 2).await;
        assert!(!request.is_finished());
        Self {
            till,
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
    both(async |face| {
        for (on_crash, vanished) in take_overs() {
            // Given a claim whose lease lapses before the store's reply arrives.
            let late = Claiming::begin(face, on_crash, vanished).await;
            let before = usize::from(vanished);

            // When another takes the key over and executes, and then the reply arrives.
            ask(&late.other, &payment()).await.is_charge(before + 1);
            late.acknowledged.add_permits(1);

            // Then the answer is the winner's.
            let answer = late.request.await.unwrap();
            answer.is_replay_of_charge(before + 1);
            assert_eq!(late.till.starts(), before + 1, "{on_crash:?}");
        }
    });
}

#[test]
fn a_claim_acknowledged_after_its_lease_executes_if_nobody_took_over() {
    both(async |face| {
        for (on_crash, vanished) in take_overs().into_iter().chain([(OnCrash::Refuse, false)]) {
            let late = Claiming::begin(face, on_crash, vanished).await;
            let before = usize::from(vanished);
            late.acknowledged.add_permits(1);
            late.request.await.unwrap().is_charge(before + 1);
            ask(&late.other, &payment())
                .await
                .is_replay_of_charge(before + 1);
            assert_eq!(late.till.starts(), before + 1, "{on_crash:?}");
        }
    });
}
