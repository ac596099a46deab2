//! Leases: renewed, lost, fenced (DESIGN.md, sections 4 and 9; invariants I1, I4, I6, I9).

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, response::IntoResponse};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use idempotent_runtime::{
    Execution, Idempotency, IdempotencyLayer, MemoryStore, OnCrash, Policy, Retention,
};
use tower::{Layer, Service};

use crate::support::{
    CountingHandler, Fault, FaultyStore, Operation, TestRequest, advance, crash, run_ready_tasks,
    send, send_in_task, with_each_adapter, with_paused_clock,
};

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

/// An engine whose heartbeats never reach the store, and one in another process that sees its leases lapse.
fn cut_off(policy: Policy) -> (Idempotency, Idempotency, FaultyStore) {
    let records = MemoryStore::new();
    let store = FaultyStore::over(records.clone());
    store.fail_always(Operation::Renew, Fault::Hang);
    let here = Idempotency::builder()
        .store(store.clone())
        .policy(policy.clone());
    let there = Idempotency::builder().store(records).policy(policy);
    (here.build().unwrap(), there.build().unwrap(), store)
}

#[test]
fn the_heartbeat_keeps_a_long_execution_alive() {
    with_each_adapter(async |adapter| {
        // Given a handler that runs for twenty leases.
        let handler = CountingHandler::new();
        let policy = Policy::new().wait(false).on_crash(OnCrash::Retry);
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;

        // When duplicates keep arriving, then none of them ever takes the key over.
        for _ in 0..100 {
            advance(Duration::from_secs(6)).await;
            send(&app, &payment()).await.assert_problem(409, "conflict");
            assert!(!handler.execution(1).lease_lost());
        }
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_service_that_is_called_outside_of_a_runtime_keeps_its_lease_within_one() {
    // Given a service that works for three leases.
    let works = tower::service_fn(async |request: Request<Body>| {
        let execution = Execution::from_extensions(request.extensions()).cloned();
        tokio::time::sleep(LEASE * 3).await;
        let lost = execution.is_some_and(|execution| execution.lease_lost());
        Ok::<_, Infallible>(Response::new(Body::from(lost.to_string())))
    });
    let engine = Idempotency::builder().store(MemoryStore::new()).build();
    let mut service = IdempotencyLayer::new(engine.unwrap()).layer(works);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();

    // When it is called before the runtime is entered.
    let request = Request::post("/pay").header("idempotency-key", "k");
    let called = service.call(request.body(Body::empty()).unwrap());
    let answered = runtime.block_on(called).unwrap();

    // Then its lease was renewed.
    let body = runtime.block_on(answered.into_body().collect()).unwrap();
    assert_eq!(body.to_bytes(), "false");
}

#[test]
fn a_short_execution_renews_nothing() {
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        advance(LEASE / 4).await;
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        assert_eq!(store.calls(Operation::Renew), 0);
    });
}

#[test]
fn the_heartbeat_ends_with_the_lifetime_and_the_handler_can_see_it() {
    with_each_adapter(async |adapter| {
        // Given a handler that never ends, under `on_crash = "refuse"`.
        let handler = CountingHandler::new();
        let policy = Policy::new()
            .wait(false)
            .max_lifetime(Duration::from_secs(120));
        let store = MemoryStore::new();
        let [app, other] = [(); 2].map(|()| {
            let engine = Idempotency::builder().policy(policy.clone());
            adapter.app(&engine.store(store.clone()).build().unwrap(), &handler)
        });
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        advance(Duration::from_secs(119)).await;
        assert!(!handler.execution(1).lease_lost());
        for app in [&app, &other] {
            send(app, &payment()).await.assert_problem(409, "conflict");
        }

        // When its lifetime is over, then its lease lapses, and the handler can see that.
        advance(LEASE + Duration::from_secs(2)).await;
        assert!(handler.execution(1).lease_lost());
        send(&other, &payment())
            .await
            .assert_problem(409, "outcome_unknown");

        // But its own process knows that it still runs.
        send(&app, &payment()).await.assert_problem(409, "conflict");

        // And when it ends all the same, its outcome is stored.
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        for app in [&app, &other] {
            send(app, &payment()).await.assert_replay_of_charge(1);
        }
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn takeover_after_a_lapsed_lease_fences_the_old_execution() {
    with_each_adapter(async |adapter| {
        // Given an execution whose lease lapsed because its heartbeats do not arrive.
        let handler = CountingHandler::new();
        let (here, there, _store) = cut_off(Policy::new().on_crash(OnCrash::Retry));
        let (here, there) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        let old = send_in_task(&here, &payment());
        handler.started(1).await;
        advance(LEASE + Duration::from_secs(1)).await;
        assert!(handler.execution(1).lease_lost());

        // When another execution takes over, and the old one ends before the new one.
        let new = send_in_task(&there, &payment());
        handler.started(2).await;
        handler.let_through(1);
        run_ready_tasks().await;
        assert!(!old.is_finished(), "it waits for the winner");
        handler.let_through(2);

        // Then both clients get the winner's outcome, and retries replay it.
        new.await.unwrap().assert_charge(2);
        advance(Duration::from_secs(1)).await;
        old.await.unwrap().assert_replay_of_charge(2);
        for app in [&here, &there] {
            send(app, &payment()).await.assert_replay_of_charge(2);
        }
        assert_eq!(handler.attempts(), [1, 2]);
    });
}

#[test]
fn an_execution_that_completes_after_a_take_over_answers_with_the_winners_outcome() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let (here, there, _store) = cut_off(Policy::new().on_crash(OnCrash::Retry));
        let (here, there) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        let old = send_in_task(&here, &payment());
        handler.started(1).await;
        advance(LEASE + Duration::from_secs(1)).await;
        handler.let_through(2);
        send(&there, &payment()).await.assert_charge(2);
        handler.let_through(1);
        old.await.unwrap().assert_replay_of_charge(2);
        send(&there, &payment()).await.assert_replay_of_charge(2);
    });
}

#[test]
fn a_fenced_execution_shows_its_own_answer_only_if_that_would_not_have_been_stored() {
    with_each_adapter(async |adapter| {
        type Own = fn() -> axum::response::Response;
        // With the status of an answer that would not be stored, whoever has the key.
        let own: [(Own, Option<u16>); 6] = [
            (|| StatusCode::TOO_MANY_REQUESTS.into_response(), Some(429)),
            (|| StatusCode::SERVICE_UNAVAILABLE.into_response(), None),
            (
                || (Retention::Release, StatusCode::BAD_GATEWAY).into_response(),
                Some(502),
            ),
            (|| panic!("a panic of the scenario"), Some(500)),
            (|| vec![0_u8; 2 << 20].into_response(), None),
            (|| StatusCode::IM_A_TEAPOT.into_response(), None),
        ];
        for (own, status) in own {
            // Given a fenced execution that would itself release, panic, leave a tombstone or be stored.
            let handler = CountingHandler::responding(move |n| match n {
                1 => own(),
                n => (StatusCode::CREATED, format!("charge {n}")).into_response(),
            });
            let (here, there, _store) = cut_off(Policy::new().on_crash(OnCrash::Retry));
            let (here, there) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
            handler.close_gate();
            let old = send_in_task(&here, &payment());
            handler.started(1).await;
            advance(LEASE + Duration::from_secs(1)).await;
            handler.let_through(2);
            send(&there, &payment()).await.assert_charge(2);

            // When it ends, then what is no outcome is its own answer; instead of an outcome it gets the winner's.
            handler.let_through(1);
            let answer = old.await.unwrap();
            match status {
                Some(500) => answer.assert_problem(500, "handler_panicked"),
                Some(status) => assert_eq!((answer.status.as_u16(), answer.text()), (status, "")),
                None => answer.assert_replay_of_charge(2),
            }

            // And retries get the winner's outcome: it was neither released nor abandoned.
            for app in [&here, &there] {
                send(app, &payment()).await.assert_replay_of_charge(2);
            }
            assert_eq!(handler.starts(), 2);
        }
    });
}

#[test]
fn a_fenced_execution_whose_winner_crashed_answers_outcome_unknown() {
    with_each_adapter(async |adapter| {
        // Given a fenced execution whose winner crashed.
        let handler = CountingHandler::new();
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let (here, _, store) = cut_off(policy.clone());
        let here = adapter.app(&here, &handler);
        handler.close_gate();
        let old = send_in_task(&here, &payment());
        handler.started(1).await;
        advance(LEASE + Duration::from_secs(1)).await;
        let winner = Idempotency::builder().policy(policy);
        crash(adapter, winner, store, &payment(), &handler).await;
        handler.let_through(1);
        advance(LEASE + Duration::from_secs(1)).await;

        // Then it neither shows its own outcome nor executes again.
        old.await.unwrap().assert_problem(409, "outcome_unknown");
        assert_eq!(handler.starts(), 2);
    });
}

#[test]
fn a_late_completion_under_refuse_succeeds_and_replays() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let (here, there, _store) = cut_off(Policy::new());
        let (here, there) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        let old = send_in_task(&here, &payment());
        handler.started(1).await;
        advance(LEASE + Duration::from_secs(60)).await;
        send(&there, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        handler.open_gate();
        old.await.unwrap().assert_charge(1);
        send(&there, &payment()).await.assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_heartbeat_that_is_fenced_shows_the_handler_that_its_lease_is_lost() {
    with_each_adapter(async |adapter| {
        // Given an execution that was taken over while its heartbeats did not arrive.
        let handler = CountingHandler::new();
        let (here, there, store) = cut_off(Policy::new().on_crash(OnCrash::Retry));
        let (here, there) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        let old = send_in_task(&here, &payment());
        handler.started(1).await;
        advance(LEASE + Duration::from_secs(1)).await;
        let new = send_in_task(&there, &payment());
        handler.started(2).await;

        // When heartbeats arrive again, then they change nothing, and the loss stays visible.
        store.heal();
        advance(LEASE * 2).await;
        assert!(handler.execution(1).lease_lost());
        assert!(!handler.execution(2).lease_lost());
        handler.open_gate();
        new.await.unwrap().assert_charge(2);
        advance(Duration::from_secs(1)).await;
        old.await.unwrap().assert_replay_of_charge(2);
    });
}

#[test]
fn a_handler_sees_a_lost_store_connection_before_its_lease_lapses() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let (here, _there, store) = cut_off(Policy::new());
        let app = adapter.app(&here, &handler);
        handler.close_gate();
        let _first = send_in_task(&app, &payment());
        handler.started(1).await;
        advance(LEASE / 10 * 9).await;
        assert!(!handler.execution(1).lease_lost());
        advance(LEASE / 10).await;
        assert!(handler.execution(1).lease_lost());

        // And when the store is back, an execution that was not taken over has its lease again.
        store.heal();
        advance(LEASE / 2).await;
        assert!(!handler.execution(1).lease_lost());
    });
}

#[test]
fn an_execution_knows_its_key_its_attempt_and_its_downstream_keys() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        send(&app, &TestRequest::payment("\"a\"")).await;
        send(&app, &TestRequest::payment("b")).await;
        let (a, b) = (handler.execution(1), handler.execution(2));
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

        // And engines with one secret derive the same downstream keys, engines with different secrets do not.
        let with = |secret: &str| {
            let engine = Idempotency::builder().secret(secret.repeat(16));
            adapter.app(&engine.build().unwrap(), &handler)
        };
        for secret in ["s", "s", "t"] {
            send(&with(secret), &TestRequest::payment("a")).await;
        }
        let [s, again, t] = [3, 4, 5].map(|n| handler.execution(n).downstream_key("bank"));
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

    with_paused_clock(async {
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/required", post(required))
            .route("/optional", post(optional))
            .route("/bare", post(bare))
            .layer(Extension(engine));
        let to = |path: &str| TestRequest::post(path);
        assert_eq!(
            send(&app, &to("/required").key("k")).await.text(),
            "attempt 1"
        );
        send(&app, &to("/required"))
            .await
            .assert_problem(400, "missing_key");
        assert_eq!(
            send(&app, &to("/optional").key("k")).await.text(),
            "protected: true"
        );
        assert_eq!(
            send(&app, &to("/optional")).await.text(),
            "protected: false"
        );
        send(&app, &to("/bare").key("k"))
            .await
            .assert_problem(400, "missing_key");
    });
}

#[test]
fn a_second_attempt_that_releases_its_key_does_not_restart_the_fencing_token() {
    with_each_adapter(async |adapter| {
        // Given a crashed execution, and a second attempt whose status releases the key.
        let handler = CountingHandler::responding(|n| {
            let status = if n == 2 { 429 } else { 201 };
            let status = StatusCode::from_u16(status).unwrap();
            (status, format!("charge {n}")).into_response()
        });
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let (store, builder) = (MemoryStore::new(), || {
            Idempotency::builder().policy(policy.clone())
        });
        handler.close_gate();
        crash(adapter, builder(), store.clone(), &payment(), &handler).await;
        handler.open_gate();
        advance(LEASE + Duration::from_secs(1)).await;
        let app = adapter.app(&builder().store(store).build().unwrap(), &handler);
        assert_eq!(send(&app, &payment()).await.status, 429);

        // When the next one executes at once, then its attempt is higher than all before it.
        send(&app, &payment()).await.assert_charge(3);
        assert_eq!(handler.attempts(), [1, 2, 3]);
    });
}
