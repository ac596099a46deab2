//! A store that takes the claim, and has no room for what comes after, or refuses it (contract, sections 2 and 4).

use std::time::Duration;

use idempotent_runtime::{Idempotency, Policy, store::StoreErrorKind};

use crate::support::{Ask, Fault, Faulty, Till, Verb, ask, asking, both, pass, settle};

fn payment() -> Ask {
    Ask::pay("k")
}

fn engine(store: &Faulty) -> Idempotency {
    let engine = Idempotency::builder().store(store.clone());
    engine.build().unwrap()
}

#[test]
fn a_response_that_the_store_does_not_take_leaves_a_tombstone() {
    both(async |face| {
        for kind in [
            StoreErrorKind::TooLarge,
            StoreErrorKind::Refused,
            StoreErrorKind::Full,
        ] {
            // Given a store that takes the claim and not the response, as one with a limit of its own.
            let (till, store) = (Till::new(), Faulty::new());
            let shop = face.shop(&engine(&store), &till);
            store.always(Verb::Complete, Fault::TakesNoResponse(kind));
            till.hold();
            let first = asking(&shop, &payment());
            till.started(1).await;
            let waiter = asking(&shop, &payment());
            settle().await;

            // When the execution ends, then its client has the answer, as with a response over the route's limit.
            till.open();
            first.await.unwrap().is_charge(1);
            // Only where it may help the completion is repeated.
            let calls = store.calls(Verb::Complete);
            let once = kind == StoreErrorKind::TooLarge;
            assert!(
                if once { calls == 2 } else { calls > 5 },
                "{calls} for {kind:?}"
            );

            // And everybody else is told that it was executed, and nothing is executed again.
            waiter.await.unwrap().is_problem(409, "response_not_stored");
            pass(Duration::from_secs(120)).await;
            ask(&shop, &payment())
                .await
                .is_problem(409, "response_not_stored");
            assert_eq!(till.starts(), 1);
        }
    });
}

#[test]
fn a_store_that_takes_the_response_in_time_has_it() {
    both(async |face| {
        for kind in [StoreErrorKind::Full, StoreErrorKind::Refused] {
            let (till, store) = (Till::new(), Faulty::new());
            let shop = face.shop(&engine(&store), &till);
            for _ in 0..5 {
                store.next(Verb::Complete, Fault::Says(kind));
            }
            ask(&shop, &payment()).await.is_charge(1);
            ask(&shop, &payment()).await.is_replay_of_charge(1);
        }
    });
}

#[test]
fn a_tombstone_never_takes_the_place_of_a_response_that_was_stored() {
    both(async |face| {
        // Given a completion that was applied, its reply lost, and a store that refuses the repetition.
        let (till, store) = (Till::new(), Faulty::new());
        let shop = face.shop(&engine(&store), &till);
        store.next(Verb::Complete, Fault::ReplyLost);
        store.next(Verb::Complete, Fault::Says(StoreErrorKind::Refused));

        // Then everybody has the response.
        let answer = ask(&shop, &payment()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (201, "charge 1"));
        ask(&shop, &payment()).await.is_replay_of_charge(1);
        assert_eq!(till.starts(), 1);
    });
}

#[test]
fn a_store_that_takes_nothing_at_all_is_asked_again_later() {
    both(async |face| {
        let (till, store) = (Till::new(), Faulty::new());
        let shop = face.shop(&engine(&store), &till);
        store.always(Verb::Complete, Fault::Says(StoreErrorKind::Full));
        ask(&shop, &payment())
            .await
            .is_problem(409, "outcome_unknown");
        store.heal();
        pass(Duration::from_secs(60)).await;
        ask(&shop, &payment()).await.is_replay_of_charge(1);
    });
}

#[test]
fn a_claim_that_was_applied_before_the_store_was_full_does_not_poison_its_key() {
    both(async |face| {
        for kind in [
            StoreErrorKind::Full,
            StoreErrorKind::Refused,
            StoreErrorKind::Corrupt,
        ] {
            // Given an acquire that was applied, and whose repetition the store has no room for.
            let (till, store) = (Till::new(), Faulty::new());
            let policy = Policy::new().wait(false);
            let engine = Idempotency::builder().store(store.clone()).policy(policy);
            let shop = face.shop(&engine.build().unwrap(), &till);
            store.next(Verb::Acquire, Fault::ReplyLost);
            store.next(Verb::Acquire, Fault::Says(kind));
            assert_ne!(ask(&shop, &payment()).await.status, 201);
            assert_eq!(till.starts(), 0);

            // When the claim has been taken back, then the retry executes, long before the lease is over.
            pass(Duration::from_secs(1)).await;
            ask(&shop, &payment()).await.is_charge(1);
        }
    });
}
