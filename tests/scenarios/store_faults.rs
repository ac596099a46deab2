//! A store that cannot be asked, or whose replies are lost (contract, sections 3 and 4; invariant I12).

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use idempotent_runtime::{
    Idempotency, MemoryStore, OnCrash, OnStoreError, Policy, Recovery, idempotent,
    store::StoreErrorKind,
};
use tokio::sync::Semaphore;

use crate::support::{
    Ask, Fault, Faulty, Till, Verb, ask, asking, both, by_hand, crash, pass, settle, waiters,
};

fn payment() -> Ask {
    Ask::pay("k")
}

fn engine(store: &Faulty) -> Idempotency {
    let engine = Idempotency::builder().store(store.clone());
    engine.build().unwrap()
}

fn engine_with(store: &Faulty, policy: Policy) -> Idempotency {
    let engine = Idempotency::builder().store(store.clone()).policy(policy);
    engine.build().unwrap()
}

/// Every way in which an acquire fails for good.
fn outages() -> [Fault; 3] {
    [
        Fault::Down,
        Fault::Silent,
        Fault::Says(StoreErrorKind::Refused),
    ]
}

#[test]
fn no_store_no_execution() {
    both(async |face| {
        for outage in outages() {
            // Given a store that cannot be reached, does not answer, or refuses.
            let (till, store) = (Till::new(), Faulty::new());
            let shop = face.shop(&engine(&store), &till);
            store.always(Verb::Acquire, outage);

            // When a request comes, then it is refused and the handler does not start.
            let answer = ask(&shop, &payment()).await;
            answer.is_problem(503, "store_unavailable");
            assert_eq!(till.starts(), 0);

            // And when the store is back, its retry executes.
            store.heal();
            ask(&shop, &payment()).await.is_charge(1);
        }
    });
}

#[test]
fn each_kind_of_store_error_has_its_answer() {
    both(async |face| {
        for (kind, calls, status, code) in [
            (StoreErrorKind::Unavailable, 2, 503, "store_unavailable"),
            (StoreErrorKind::Refused, 1, 503, "store_unavailable"),
            (StoreErrorKind::Full, 1, 503, "overloaded"),
            (StoreErrorKind::Corrupt, 1, 500, "record_unreadable"),
        ] {
            let (till, store) = (Till::new(), Faulty::new());
            let shop = face.shop(&engine(&store), &till);
            store.always(Verb::Acquire, Fault::Says(kind));
            ask(&shop, &payment()).await.is_problem(status, code);
            // Only where it may help the acquire is repeated.
            assert_eq!(store.calls(Verb::Acquire), calls, "{kind:?}");
            assert_eq!(till.starts(), 0);
        }
    });
}

#[test]
fn a_store_may_take_its_time() {
    both(async |face| {
        // Given an acquire, a completion and a look that each need most of the store's time.
        let (till, store) = (Till::new(), Faulty::new());
        let shop = face.shop(&engine(&store), &till);
        let permits = Arc::new(Semaphore::new(0));
        store.always(Verb::Acquire, Fault::Late(permits.clone()));
        store.always(Verb::Complete, Fault::Late(permits.clone()));
        let request = asking(&shop, &payment());
        for _ in 0..2 {
            pass(Duration::from_millis(900)).await;
            permits.add_permits(1);
        }
        request.await.unwrap().is_charge(1);
        permits.add_permits(1);
        ask(&shop, &payment()).await.is_replay_of_charge(1);
    });
}

#[test]
fn whoever_asks_for_it_executes_without_a_store() {
    both(async |face| {
        for outage in outages() {
            let till = Till::answering(|n| {
                let passed_on = [("idempotent-replay", "true")];
                (StatusCode::CREATED, passed_on, format!("charge {n}")).into_response()
            });
            let store = Faulty::new();
            let engine = Idempotency::builder()
                .store(store.clone())
                .on_store_error(OnStoreError::Execute)
                .build()
                .unwrap();
            let shop = face.shop(&engine, &till);
            store.always(Verb::Acquire, outage);
            // What the handler passes on from elsewhere makes no replay of it.
            for n in 1..=2 {
                ask(&shop, &payment()).await.is_charge(n);
            }
            assert_eq!(till.attempts(), [1, 1]);
            assert!(till.execution(1).lease_lost(), "nothing is leased");
        }
    });
}

#[test]
fn a_full_store_refuses_even_where_an_unreachable_one_would_not() {
    both(async |face| {
        let till = Till::new();
        let engine = Idempotency::builder()
            .store(MemoryStore::builder().max_records(0).build())
            .on_store_error(OnStoreError::Execute)
            .build()
            .unwrap();
        let answer = ask(&face.shop(&engine, &till), &payment()).await;
        answer.is_problem(503, "overloaded");
        assert_eq!(till.starts(), 0);
    });
}

#[test]
fn on_store_error_execute_never_executes_a_key_that_was_seen_in_flight() {
    both(async |face| {
        // Given an execution in flight and a duplicate that waits for it.
        let (till, store) = (Till::new(), Faulty::new());
        let engine = Idempotency::builder()
            .store(store.clone())
            .on_store_error(OnStoreError::Execute)
            .build()
            .unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        let second = asking(&shop, &payment());
        settle().await;

        // When the store fails until the duplicate's time is over.
        store.always(Verb::Acquire, Fault::Down);
        pass(Duration::from_secs(31)).await;

        // Then the duplicate is told so: the store had said that the key is taken.
        let answer = second.await.unwrap();
        answer.is_problem(503, "store_unavailable");
        assert_eq!(till.starts(), 1, "the store had said that the key is taken");
        till.open();
        first.await.unwrap().is_charge(1);
    });
}

#[test]
fn on_store_error_execute_never_executes_what_may_have_crashed_in_the_middle() {
    both(async |face| {
        // Given an execution that vanished, and a function that could find out what it did.
        let (till, store) = (Till::new(), Faulty::new());
        let engine = Idempotency::builder()
            .store(store.clone())
            .on_store_error(OnStoreError::Execute)
            .policy(Policy::new().on_crash(OnCrash::Recover(|_| {
                Box::pin(async { Recovery::StillUnknown })
            })))
            .build()
            .unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        crash(&shop, &payment(), &till).await;
        till.open();
        pass(Duration::from_secs(31)).await;

        // When the store shows the crash and then fails before the function can be asked.
        store.next(Verb::Acquire, Fault::None);
        store.always(Verb::Acquire, Fault::Down);
        let answer = ask(&shop, &payment()).await;

        // Then nothing is executed.
        answer.is_problem(503, "store_unavailable");
        assert_eq!(
            till.starts(),
            1,
            "the first execution may have had its effect"
        );
    });
}

#[test]
fn an_acquire_whose_reply_was_lost_is_repeated_and_executes_once() {
    both(async |face| {
        for lost in [Fault::ReplyLost, Fault::SilentAfterwards] {
            let (till, store) = (Till::new(), Faulty::new());
            let shop = face.shop(&engine(&store), &till);
            store.next(Verb::Acquire, lost);
            ask(&shop, &payment()).await.is_charge(1);
            ask(&shop, &payment()).await.is_replay_of_charge(1);
            assert_eq!((till.starts(), till.attempts()), (1, vec![1]));
        }
    });
}

#[test]
fn an_acquire_that_was_applied_but_never_acknowledged_does_not_poison_its_key() {
    both(async |face| {
        for policy in [Policy::new(), Policy::new().wait(false)] {
            // Given an acquire of which every reply is lost.
            let (till, store) = (Till::new(), Faulty::new());
            let shop = face.shop(&engine_with(&store, policy), &till);
            store.next(Verb::Acquire, Fault::ReplyLost);
            store.next(Verb::Acquire, Fault::ReplyLost);
            let answer = ask(&shop, &payment()).await;
            answer.is_problem(503, "store_unavailable");
            assert_eq!(till.starts(), 0);

            // When the claim has been taken back, then the retry executes, long before the lease is over.
            pass(Duration::from_secs(1)).await;
            ask(&shop, &payment()).await.is_charge(1);
        }
    });
}

#[test]
fn a_claim_is_taken_back_even_when_it_arrives_late_and_the_store_stumbles() {
    both(async |face| {
        // Given an acquire that reaches the store only after its request was refused.
        let (till, store) = (Till::new(), Faulty::new());
        let shop = face.shop(&engine(&store), &till);
        store.next(Verb::Acquire, Fault::ReplyLost);
        store.next(Verb::Acquire, Fault::Silent);
        store.next(Verb::Release, Fault::Down);
        store.next(Verb::Release, Fault::ReplyLost);
        let request = asking(&shop, &payment());
        pass(Duration::from_secs(3)).await;
        request.await.unwrap().is_problem(503, "store_unavailable");

        // When the store is well again, then the key is free.
        pass(Duration::from_secs(2)).await;
        ask(&shop, &payment()).await.is_charge(1);
        assert_eq!(till.attempts(), [1]);
    });
}

#[test]
fn a_lost_take_over_of_a_crashed_execution_does_not_forget_the_crash() {
    both(async |face| {
        // Given an execution that had its effect and vanished, under `on_crash = path`.
        let (till, store) = (Till::new(), Faulty::new());
        let recover: idempotent_runtime::RecoverFn = |_| Box::pin(async { Recovery::StillUnknown });
        let policy = Policy::new().on_crash(OnCrash::Recover(recover));
        let shop = face.shop(&engine_with(&store, policy), &till);
        till.hold();
        crash(&shop, &payment(), &till).await;
        till.open();
        pass(Duration::from_secs(31)).await;

        // When a retry sees that, takes the key over to find out, and the replies to that are lost.
        store.next(Verb::Acquire, Fault::None);
        store.next(Verb::Acquire, Fault::ReplyLost);
        store.next(Verb::Acquire, Fault::ReplyLost);
        let answer = ask(&shop, &payment()).await;
        answer.is_problem(503, "store_unavailable");
        pass(Duration::from_secs(2)).await;

        // Then the next retry asks the function as well, and does not execute as if nothing had happened.
        let answer = ask(&shop, &payment()).await;
        answer.is_problem(409, "outcome_unknown");
        assert_eq!(
            till.starts(),
            1,
            "nobody said that the first did not execute"
        );
    });
}

#[test]
fn a_lost_take_over_does_not_restart_the_fencing_token() {
    both(async |face| {
        // Given an execution that vanished, under `on_crash = "retry"`.
        let (till, store) = (Till::new(), Faulty::new());
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let shop = face.shop(&engine_with(&store, policy), &till);
        till.hold();
        crash(&shop, &payment(), &till).await;
        till.open();
        pass(Duration::from_secs(31)).await;

        // When a retry takes over and the replies to that are lost.
        store.next(Verb::Acquire, Fault::ReplyLost);
        store.next(Verb::Acquire, Fault::ReplyLost);
        let answer = ask(&shop, &payment()).await;
        answer.is_problem(503, "store_unavailable");
        pass(Duration::from_secs(2)).await;

        // Then the next execution has a higher number than any before it.
        ask(&shop, &payment()).await.is_charge(2);
        let attempts = till.attempts();
        assert!(attempts[1] > attempts[0], "{attempts:?}");
    });
}

#[test]
fn a_waiter_that_leaves_after_a_lost_acquire_leaves_no_claim_behind() {
    both(async |face| {
        // Given an execution that releases its key, and a duplicate that waits for it.
        let (till, store) = (Till::refusing_first(429), Faulty::mute());
        let engine = engine(&store);
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        let second = asking(&shop, &payment());
        settle().await;
        assert_eq!(waiters(&engine), 1);

        // When its look gets the key that became free, the replies to that are lost, and its client leaves.
        store.next(Verb::Acquire, Fault::ReplyLost);
        store.next(Verb::Acquire, Fault::ReplyLost);
        store.next(Verb::Acquire, Fault::ReplyLost);
        store.next(Verb::Acquire, Fault::ReplyLost);
        till.open();
        assert_eq!(first.await.unwrap().status, 429);
        pass(Duration::from_millis(100)).await;
        second.abort();
        pass(Duration::from_secs(40)).await;

        // Then the key does not stay claimed for nothing: the retry gets a real answer.
        let answer = ask(&shop, &payment()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(till.effects(), 2, "the released one and one more");
    });
}

#[test]
fn a_completion_whose_reply_was_lost_is_repeated_and_harmless() {
    both(async |face| {
        for lost in [
            Fault::ReplyLost,
            Fault::SilentAfterwards,
            Fault::Down,
            Fault::Silent,
        ] {
            let (till, store) = (Till::new(), Faulty::new());
            let shop = face.shop(&engine(&store), &till);
            store.next(Verb::Complete, lost.clone());
            store.next(Verb::Complete, lost);
            ask(&shop, &payment()).await.is_charge(1);
            assert_eq!(store.calls(Verb::Complete), 3);
            ask(&shop, &payment()).await.is_replay_of_charge(1);
            assert_eq!(till.starts(), 1);
        }
    });
}

#[test]
fn a_completion_that_is_never_acknowledged_is_told_and_stored_later() {
    both(async |face| {
        for outage in [
            Fault::Down,
            Fault::ReplyLost,
            Fault::Says(StoreErrorKind::Refused),
        ] {
            // Given a store that fails once the handler has run.
            let (till, store) = (Till::new(), Faulty::new());
            let policy = Policy::new().wait(false);
            let shop = face.shop(&engine_with(&store, policy), &till);
            let applied = matches!(outage, Fault::ReplyLost);
            store.always(Verb::Complete, outage);

            // When the request is answered, then with the truth.
            let answer = ask(&shop, &payment()).await;
            answer.is_problem(409, "outcome_unknown");

            // And the key stays claimed for as long as the store is down, lease after lease.
            if !applied {
                pass(Duration::from_secs(120)).await;
                ask(&shop, &payment()).await.is_problem(409, "conflict");
            }

            // And when the store is back, the outcome is stored after all.
            store.heal();
            pass(Duration::from_secs(60)).await;
            ask(&shop, &payment()).await.is_replay_of_charge(1);
            assert_eq!(till.starts(), 1);
        }
    });
}

#[test]
fn waiters_get_the_outcome_that_was_stored_late() {
    both(async |face| {
        let (till, store) = (Till::new(), Faulty::new());
        let shop = face.shop(&engine(&store), &till);
        store.always(Verb::Complete, Fault::Down);
        ask(&shop, &payment())
            .await
            .is_problem(409, "outcome_unknown");
        let waiter = asking(&shop, &payment());
        pass(Duration::from_secs(5)).await;
        store.heal();
        pass(Duration::from_secs(3)).await;
        waiter.await.unwrap().is_replay_of_charge(1);
        assert_eq!(till.starts(), 1);
    });
}

#[test]
fn an_outcome_that_can_not_be_stored_is_given_up_when_its_lifetime_is_over() {
    both(async |face| {
        let (till, store) = (Till::new(), Faulty::new());
        let shop = face.shop(&engine(&store), &till);
        store.always(Verb::Complete, Fault::Down);
        ask(&shop, &payment())
            .await
            .is_problem(409, "outcome_unknown");
        pass(Duration::from_secs(16 * 60)).await;
        let calls = store.calls(Verb::Complete);
        pass(Duration::from_secs(120)).await;
        assert_eq!(store.calls(Verb::Complete), calls, "nobody tries for ever");
        store.heal();

        // Then nobody executes it a second time.
        ask(&shop, &payment())
            .await
            .is_problem(409, "outcome_unknown");
        assert_eq!(till.starts(), 1);
    });
}

#[test]
fn a_release_whose_reply_was_lost_is_repeated() {
    both(async |face| {
        let (till, store) = (Till::refusing_first(429), Faulty::new());
        let shop = face.shop(&engine(&store), &till);
        store.next(Verb::Release, Fault::ReplyLost);
        store.next(Verb::Release, Fault::Down);
        assert_eq!(ask(&shop, &payment()).await.status, 429);
        ask(&shop, &payment()).await.is_charge(2);
    });
}

#[test]
fn a_release_that_was_not_acknowledged_is_made_up_for_once_the_store_is_back() {
    both(async |face| {
        // Longer than the store's time, than a lease, than many leases.
        for outage in [10, 60, 300] {
            // Given an answer that asks for the same request again, and a store that is away by then.
            let (till, store) = (Till::refusing_first(429), Faulty::new());
            let policy = Policy::new().wait(false);
            let shop = face.shop(&engine_with(&store, policy), &till);
            store.always(Verb::Release, Fault::Down);
            assert_eq!(ask(&shop, &payment()).await.status, 429);
            pass(Duration::from_secs(outage)).await;
            assert_ne!(ask(&shop, &payment()).await.status, 201);
            assert_eq!(till.starts(), 1);

            // When the store is back, then the client finds its key free.
            store.heal();
            pass(Duration::from_secs(15)).await;
            ask(&shop, &payment()).await.is_charge(2);
            assert_eq!(till.attempts(), [1, 1], "as if it had never been used");
        }
    });
}

#[test]
fn a_rejection_whose_release_was_not_acknowledged_is_made_up_for_too() {
    #[idempotent(wait = false)]
    async fn order(State(till): State<Till>, Json(order): Json<u32>) -> Response {
        till.run(Request::new(order.to_string().into())).await
    }

    by_hand(async {
        // Given a request that the handler's extractors reject while the store is away.
        let (till, store) = (Till::new(), Faulty::new());
        let shop = Router::new()
            .route("/order", post(order))
            .layer(Extension(engine(&store)))
            .with_state(till.clone());
        let order = Ask::post("/order").key("k");
        let order = order.header("content-type", "application/json");
        store.always(Verb::Release, Fault::Silent);
        assert_eq!(ask(&shop, &order.clone().body("x")).await.status, 400);
        pass(Duration::from_secs(60)).await;

        // When the store is back, then the corrected request has the key for itself.
        store.heal();
        pass(Duration::from_secs(15)).await;
        ask(&shop, &order.body("7")).await.is_charge(1);
    });
}

#[test]
fn a_heartbeat_that_fails_is_repeated_before_the_lease_is_over() {
    both(async |face| {
        // Given an execution of ten leases in which every second renewal fails.
        let (till, store) = (Till::new(), Faulty::new());
        let policy = Policy::new().wait(false);
        let shop = face.shop(&engine_with(&store, policy), &till);
        for n in 0..100 {
            let fault = if n % 2 == 0 { Fault::Down } else { Fault::None };
            store.next(Verb::Renew, fault);
        }
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        for _ in 0..300 {
            pass(Duration::from_secs(1)).await;
            ask(&shop, &payment()).await.is_problem(409, "conflict");
            assert!(!till.execution(1).lease_lost());
        }
        till.open();
        first.await.unwrap().is_charge(1);
    });
}

#[test]
fn an_outcome_whose_record_was_lost_is_told_as_unknown() {
    both(async |face| {
        // Given a store that forgets a record in the middle of its execution, as one that was flushed does.
        let (till, store) = (Till::new(), Faulty::new());
        let shop = face.shop(&engine(&store), &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        store.lose().await;
        till.open();

        // Then the client is not told of an outcome that no retry will show.
        first.await.unwrap().is_problem(409, "outcome_unknown");
    });
}
