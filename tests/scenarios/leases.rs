//! Leases: kept alive, lost, fenced (contract, sections 4 and 9; invariants I1, I4, I6, I9).

use std::time::Duration;

use axum::response::IntoResponse;
use http::StatusCode;
use idempotent_runtime::{Idempotency, MemoryStore, OnCrash, Policy, Retention};

use crate::support::{
    Ask, Fault, Faulty, Till, Verb, ask, asking, both, by_hand, crash, pass, settle,
};

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> Ask {
    Ask::pay("k")
}

/// An engine whose heartbeats never reach the store, and one of another process that sees its leases lapse.
fn cut_off(policy: Policy) -> (Idempotency, Idempotency, Faulty) {
    let records = MemoryStore::new();
    let store = Faulty::over(records.clone());
    store.always(Verb::Renew, Fault::Silent);
    let here = Idempotency::builder().store(store.clone()).policy(policy);
    let there = Idempotency::builder().store(records).policy(policy);
    (here.build().unwrap(), there.build().unwrap(), store)
}

#[test]
fn the_heartbeat_keeps_a_long_execution_alive() {
    both(async |face| {
        // Given a handler that runs for twenty leases.
        let till = Till::new();
        let policy = Policy::new().wait(false).on_crash(OnCrash::Retry);
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;

        // When duplicates come all the time, then nobody ever takes the key over.
        for _ in 0..100 {
            pass(Duration::from_secs(6)).await;
            ask(&shop, &payment()).await.is_problem(409, "conflict");
            assert!(!till.execution(1).lease_lost());
        }
        till.open();
        first.await.unwrap().is_charge(1);
        assert_eq!(till.starts(), 1);
    });
}

#[test]
fn a_short_execution_renews_nothing() {
    both(async |face| {
        let (till, store) = (Till::new(), Faulty::new());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        pass(LEASE / 4).await;
        till.open();
        first.await.unwrap().is_charge(1);
        assert_eq!(store.calls(Verb::Renew), 0);
    });
}

#[test]
fn the_heartbeat_ends_with_the_lifetime_and_the_handler_can_see_it() {
    both(async |face| {
        // Given a handler that never ends, under `on_crash = "refuse"`.
        let till = Till::new();
        let policy = Policy::new()
            .wait(false)
            .max_lifetime(Duration::from_secs(120));
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        pass(Duration::from_secs(119)).await;
        assert!(!till.execution(1).lease_lost());
        ask(&shop, &payment()).await.is_problem(409, "conflict");

        // When its lifetime is over, then its lease lapses, and it can see that.
        pass(LEASE + Duration::from_secs(2)).await;
        assert!(till.execution(1).lease_lost());
        ask(&shop, &payment())
            .await
            .is_problem(409, "outcome_unknown");

        // And when it ends all the same, its outcome is the outcome.
        till.open();
        first.await.unwrap().is_charge(1);
        ask(&shop, &payment()).await.is_replay_of_charge(1);
        assert_eq!(till.starts(), 1);
    });
}

#[test]
fn takeover_after_a_lapsed_lease_fences_the_old_execution() {
    both(async |face| {
        // Given an execution whose lease lapsed because its heartbeats do not arrive.
        let till = Till::new();
        let (here, there, _store) = cut_off(Policy::new().on_crash(OnCrash::Retry));
        let (here, there) = (face.shop(&here, &till), face.shop(&there, &till));
        till.hold();
        let old = asking(&here, &payment());
        till.started(1).await;
        pass(LEASE + Duration::from_secs(1)).await;
        assert!(till.execution(1).lease_lost());

        // When another takes over, and the old one comes back before the new one is done.
        let new = asking(&there, &payment());
        till.started(2).await;
        till.release(1);
        settle().await;
        assert!(!old.is_finished(), "it waits for the winner");
        till.release(2);

        // Then both show the winner's outcome, and it is what is replayed.
        new.await.unwrap().is_charge(2);
        pass(Duration::from_secs(1)).await;
        old.await.unwrap().is_replay_of_charge(2);
        for shop in [&here, &there] {
            ask(shop, &payment()).await.is_replay_of_charge(2);
        }
        assert_eq!(till.attempts(), [1, 2]);
    });
}

#[test]
fn a_late_completion_after_a_take_over_gets_the_winners_answer() {
    both(async |face| {
        let till = Till::new();
        let (here, there, _store) = cut_off(Policy::new().on_crash(OnCrash::Retry));
        let (here, there) = (face.shop(&here, &till), face.shop(&there, &till));
        till.hold();
        let old = asking(&here, &payment());
        till.started(1).await;
        pass(LEASE + Duration::from_secs(1)).await;
        till.release(2);
        ask(&there, &payment()).await.is_charge(2);
        till.release(1);
        old.await.unwrap().is_replay_of_charge(2);
        ask(&there, &payment()).await.is_replay_of_charge(2);
    });
}

#[test]
fn a_fenced_execution_never_shows_an_answer_of_its_own_whatever_it_is() {
    both(async |face| {
        type Own = fn() -> axum::response::Response;
        let own: [Own; 4] = [
            || StatusCode::SERVICE_UNAVAILABLE.into_response(),
            || (Retention::Release, StatusCode::BAD_GATEWAY).into_response(),
            || panic!("as the scenario demands"),
            || vec![0_u8; 2 << 20].into_response(),
        ];
        for own in own {
            // Given an execution that was fenced, and whose own end would store, release, abandon or entomb.
            let till = Till::answering(move |n| match n {
                1 => own(),
                n => (StatusCode::CREATED, format!("charge {n}")).into_response(),
            });
            let (here, there, _store) = cut_off(Policy::new().on_crash(OnCrash::Retry));
            let (here, there) = (face.shop(&here, &till), face.shop(&there, &till));
            till.hold();
            let old = asking(&here, &payment());
            till.started(1).await;
            pass(LEASE + Duration::from_secs(1)).await;
            till.release(2);
            ask(&there, &payment()).await.is_charge(2);

            // When it ends, then it shows the winner's outcome.
            till.release(1);
            old.await.unwrap().is_replay_of_charge(2);
            ask(&there, &payment()).await.is_replay_of_charge(2);
        }
    });
}

#[test]
fn a_fenced_execution_is_told_that_its_winner_is_unknown() {
    both(async |face| {
        // Given a fenced execution whose winner vanishes too.
        let till = Till::new();
        let (here, there, _store) = cut_off(Policy::new().on_crash(OnCrash::Retry));
        let (here, there) = (face.shop(&here, &till), face.shop(&there, &till));
        till.hold();
        let old = asking(&here, &payment());
        till.started(1).await;
        pass(LEASE + Duration::from_secs(1)).await;
        crash(&there, &payment(), &till).await;
        till.release(1);
        pass(LEASE + Duration::from_secs(1)).await;

        // Then it neither shows its own outcome nor executes again.
        old.await.unwrap().is_problem(409, "outcome_unknown");
        assert_eq!(till.starts(), 2);
    });
}

#[test]
fn a_late_completion_under_refuse_succeeds_and_replays() {
    both(async |face| {
        let till = Till::new();
        let (here, there, _store) = cut_off(Policy::new());
        let (here, there) = (face.shop(&here, &till), face.shop(&there, &till));
        till.hold();
        let old = asking(&here, &payment());
        till.started(1).await;
        pass(LEASE + Duration::from_secs(60)).await;
        ask(&there, &payment())
            .await
            .is_problem(409, "outcome_unknown");
        till.open();
        old.await.unwrap().is_charge(1);
        ask(&there, &payment()).await.is_replay_of_charge(1);
        assert_eq!(till.starts(), 1);
    });
}

#[test]
fn a_heartbeat_that_meets_another_owner_tells_the_handler() {
    both(async |face| {
        // Given an execution that was taken over while its heartbeats did not arrive.
        let till = Till::new();
        let (here, there, store) = cut_off(Policy::new().on_crash(OnCrash::Retry));
        let (here, there) = (face.shop(&here, &till), face.shop(&there, &till));
        till.hold();
        let old = asking(&here, &payment());
        till.started(1).await;
        pass(LEASE + Duration::from_secs(1)).await;
        let new = asking(&there, &payment());
        till.started(2).await;

        // When they arrive again, then they change nothing, and the loss stays visible.
        store.heal();
        pass(LEASE * 2).await;
        assert!(till.execution(1).lease_lost());
        assert!(!till.execution(2).lease_lost());
        till.open();
        new.await.unwrap().is_charge(2);
        pass(Duration::from_secs(1)).await;
        old.await.unwrap().is_replay_of_charge(2);
    });
}

#[test]
fn a_lost_connection_to_the_store_is_visible_before_the_lease_is_over_there() {
    both(async |face| {
        let till = Till::new();
        let (here, _there, store) = cut_off(Policy::new());
        let shop = face.shop(&here, &till);
        till.hold();
        let _first = asking(&shop, &payment());
        till.started(1).await;
        pass(LEASE / 10 * 9).await;
        assert!(!till.execution(1).lease_lost());
        pass(LEASE / 10).await;
        assert!(till.execution(1).lease_lost());

        // And when the store is back, an execution that nobody took over has its lease again.
        store.heal();
        pass(LEASE / 2).await;
        assert!(!till.execution(1).lease_lost());
    });
}

#[test]
fn an_execution_knows_its_key_its_attempt_and_keys_to_pass_on() {
    both(async |face| {
        let till = Till::new();
        let engine = Idempotency::builder().build().unwrap();
        let shop = face.shop(&engine, &till);
        ask(&shop, &Ask::pay("\"a\"")).await;
        ask(&shop, &Ask::pay("b")).await;
        let (a, b) = (till.execution(1), till.execution(2));
        assert_eq!((a.key().expose(), b.key().expose()), ("a", "b"));
        assert_eq!((a.attempt(), b.attempt()), (1, 1));
        assert_eq!(a.downstream_key("bank"), a.downstream_key("bank"));
        let keys = [
            a.downstream_key("bank"),
            a.downstream_key("ledger"),
            b.downstream_key("bank"),
        ];
        assert!(keys[0] != keys[1] && keys[0] != keys[2], "{keys:?}");
        assert!(
            keys.iter()
                .all(|key| key.len() == 36 && !key.contains("\"a\""))
        );

        // Two engines of one service pass on the same keys, engines with different secrets do not.
        let with = |secret: &str| {
            let engine = Idempotency::builder().secret(secret.repeat(16));
            face.shop(&engine.build().unwrap(), &till)
        };
        for secret in ["s", "s", "t"] {
            ask(&with(secret), &Ask::pay("a")).await;
        }
        let [s, again, t] = [3, 4, 5].map(|n| till.execution(n).downstream_key("bank"));
        assert_eq!(s, again);
        assert!(s != t && s != keys[0]);
    });
}

#[test]
fn handlers_get_the_execution_as_an_extractor() {
    use axum::{Extension, Router, routing::post};
    use idempotent_runtime::{Execution, idempotent};

    #[idempotent]
    async fn required(execution: Execution) -> String {
        format!("attempt {}", execution.attempt())
    }

    #[idempotent]
    async fn optional(execution: Option<Execution>) -> String {
        format!("protected: {}", execution.is_some())
    }

    async fn bare(execution: Execution) -> String {
        execution.attempt().to_string()
    }

    by_hand(async {
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/required", post(required))
            .route("/optional", post(optional))
            .route("/bare", post(bare))
            .layer(Extension(engine));
        let to = |path: &str| Ask::post(path);
        assert_eq!(
            ask(&app, &to("/required").key("k")).await.text(),
            "attempt 1"
        );
        ask(&app, &to("/required"))
            .await
            .is_problem(400, "missing_key");
        assert_eq!(
            ask(&app, &to("/optional").key("k")).await.text(),
            "protected: true"
        );
        assert_eq!(ask(&app, &to("/optional")).await.text(), "protected: false");
        ask(&app, &to("/bare").key("k"))
            .await
            .is_problem(400, "missing_key");
    });
}

#[test]
fn a_second_attempt_that_gives_its_key_back_does_not_restart_the_fencing_token() {
    both(async |face| {
        // Given an execution that vanished, and a second attempt that answers "not now".
        let till = Till::answering(|n| {
            let status = if n == 2 { 503 } else { 201 };
            let status = StatusCode::from_u16(status).unwrap();
            (status, format!("charge {n}")).into_response()
        });
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        crash(&shop, &payment(), &till).await;
        till.open();
        pass(LEASE + Duration::from_secs(1)).await;
        assert_eq!(ask(&shop, &payment()).await.status, 503);

        // When the next one executes at once, then its number is higher than all that went before.
        ask(&shop, &payment()).await.is_charge(3);
        assert_eq!(till.attempts(), [1, 2, 3]);
    });
}
