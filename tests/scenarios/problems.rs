//! The engine's own answers, as problem details (DESIGN.md, section 7).

use std::time::Duration;

use axum::Router;
use http::{HeaderName, StatusCode};
use idempotent_runtime::{
    Builder, Idempotency, MemoryStore, Policy, Profile, store::StoreErrorKind,
};
use tower::ServiceExt;

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Operation, TestRequest, TestResponse, advance,
    app_without_engine, crash, frames, run_ready_tasks, send, send_in_task, with_each_adapter,
    with_paused_clock,
};

/// A row of the table: code, status, whether there is a `Retry-After`, and the action.
type Row = (&'static str, u16, bool, &'static str);

const TABLE: [Row; 12] = [
    ("missing_key", 400, false, "fix_request"),
    ("invalid_key", 400, false, "fix_request"),
    ("unreadable_body", 400, false, "retry_same_key"),
    ("request_too_large", 413, false, "fix_request"),
    ("mismatch", 409, false, "fix_request"),
    ("conflict", 409, true, "retry_same_key"),
    ("outcome_unknown", 409, true, "retry_same_key"),
    ("response_not_stored", 409, false, "none"),
    ("store_unavailable", 503, true, "retry_same_key"),
    ("overloaded", 503, true, "retry_same_key"),
    ("record_unreadable", 500, false, "none"),
    ("handler_panicked", 500, false, "none"),
];

/// Quoted, so that the strict profile accepts it too.
const KEY: &str = "\"k\"";

fn payment() -> TestRequest {
    TestRequest::payment(KEY)
}

/// Makes an engine with these settings give this answer.
async fn provoke(code: &str, adapter: Adapter, settings: impl Fn() -> Builder) -> TestResponse {
    let handler = CountingHandler::new();
    let app = |builder: Builder, handler: &CountingHandler| {
        adapter.app(&builder.build().unwrap(), handler)
    };
    let with = |policy: Policy| settings().policy(policy);
    match code {
        "missing_key" => {
            let app = app(with(Policy::new().required(true)), &handler);
            send(&app, &TestRequest::post("/pay")).await
        }
        "invalid_key" => send(&app(settings(), &handler), &payment().key(KEY)).await,
        "unreadable_body" => broken_body(&app(settings(), &handler)).await,
        "request_too_large" => {
            let app = app(with(Policy::new().max_body(8)), &handler);
            send(&app, &payment()).await
        }
        "mismatch" => {
            let app = app(settings(), &handler);
            send(&app, &payment()).await.assert_charge(1);
            send(&app, &payment().body("{}")).await
        }
        "conflict" => {
            let app = app(with(Policy::new().wait(false)), &handler);
            handler.close_gate();
            let _first = send_in_task(&app, &payment());
            handler.started(1).await;
            send(&app, &payment()).await
        }
        "outcome_unknown" => {
            let store = MemoryStore::new();
            handler.close_gate();
            crash(adapter, settings(), store.clone(), &payment(), &handler).await;
            advance(Duration::from_secs(31)).await;
            send(&app(settings().store(store), &handler), &payment()).await
        }
        "response_not_stored" => {
            let app = app(with(Policy::new().max_response(4)), &handler);
            send(&app, &payment()).await.assert_charge(1);
            send(&app, &payment()).await
        }
        "store_unavailable" => {
            let store = FaultyStore::new();
            store.fail_always(Operation::Acquire, Fault::Unreachable);
            send(&app(settings().store(store), &handler), &payment()).await
        }
        "overloaded" => {
            let store = MemoryStore::builder().max_records(0).build();
            send(&app(settings().store(store), &handler), &payment()).await
        }
        "record_unreadable" => {
            let store = FaultyStore::new();
            store.fail_always(Operation::Acquire, Fault::Error(StoreErrorKind::Corrupt));
            send(&app(settings().store(store), &handler), &payment()).await
        }
        "handler_panicked" => {
            let handler = CountingHandler::responding(|_| panic!("a panic of the scenario"));
            send(&app(settings(), &handler), &payment()).await
        }
        other => unreachable!("no way to provoke {other}"),
    }
}

/// Sends a request whose body ends in an error.
async fn broken_body(app: &Router) -> TestResponse {
    let (sender, body) = frames();
    sender
        .send(Err(std::io::ErrorKind::ConnectionReset.into()))
        .unwrap();
    let response = app.clone().oneshot(payment().request_with(body)).await;
    TestResponse::read(response.unwrap()).await
}

/// Asserts that all members of a problem are there and agree with each other.
#[track_caller]
fn assert_complete_problem(
    answer: &TestResponse,
    type_base: &str,
    (code, status, retry_after, action): Row,
) {
    let problem = answer.json();
    let members: Vec<_> = problem.as_object().unwrap().keys().cloned().collect();
    let mut expected = [
        "type",
        "title",
        "status",
        "detail",
        "code",
        "retryable",
        "action",
    ];
    expected.sort_unstable();
    assert_eq!(members, expected, "{code}");
    assert_eq!(answer.status.as_u16(), status, "{code}");
    assert_eq!(
        answer.lines("content-type"),
        ["application/problem+json"],
        "{code}"
    );
    assert_eq!(answer.lines("cache-control"), ["no-store"], "{code}");
    assert_eq!(problem["type"], format!("{type_base}{code}"));
    assert_eq!(problem["status"], status, "{code}");
    assert_eq!(problem["code"], code);
    assert_eq!(problem["action"], action, "{code}");
    assert_eq!(problem["retryable"], action == "retry_same_key", "{code}");
    for text in ["title", "detail"] {
        assert!(!problem[text].as_str().unwrap().is_empty(), "{code}");
    }
    let seconds: Vec<u64> = answer
        .lines("retry-after")
        .iter()
        .map(|seconds| seconds.parse().unwrap())
        .collect();
    assert_eq!(seconds.len(), usize::from(retry_after), "{code}");
    assert!(seconds.iter().all(|seconds| *seconds >= 1), "{code}");
    for replay in ["idempotent-replay", "idempotent-replayed", "x-again"] {
        assert!(!answer.headers.contains_key(replay), "{code}");
    }
}

#[test]
fn every_answer_of_the_engine_is_a_problem() {
    with_each_adapter(async |adapter| {
        for row in TABLE {
            let answer = provoke(row.0, adapter, Idempotency::builder).await;
            assert_complete_problem(&answer, "/problems/idempotency/", row);
        }
    });
}

#[test]
fn the_ietf_profile_answers_a_mismatch_with_422() {
    with_each_adapter(async |adapter| {
        for mut row in TABLE {
            if row.0 == "mismatch" {
                row.1 = 422;
            }
            let settings = || {
                Idempotency::builder()
                    .profile(Profile::Ietf)
                    .problem_type_base("https://example.com/problems/")
            };
            let answer = provoke(row.0, adapter, settings).await;
            assert_complete_problem(&answer, "https://example.com/problems/", row);
        }
    });
}

#[test]
fn the_stripe_profile_answers_a_mismatch_with_400() {
    with_each_adapter(async |adapter| {
        for mut row in TABLE {
            if row.0 == "mismatch" {
                row.1 = 400;
            }
            let settings = || {
                Idempotency::builder()
                    .profile(Profile::Stripe)
                    .problem_type_base("urn:problem:")
            };
            assert_complete_problem(
                &provoke(row.0, adapter, settings).await,
                "urn:problem:",
                row,
            );
        }
    });
}

#[test]
fn a_profile_decides_about_keys_waiting_and_the_replay_header() {
    with_each_adapter(async |adapter| {
        for (profile, bare, waits, header) in [
            (Profile::Default, true, true, "idempotent-replay"),
            (Profile::Ietf, false, false, "idempotent-replay"),
            (Profile::Stripe, true, false, "idempotent-replayed"),
        ] {
            // Given an engine of this profile and nothing else.
            let handler = CountingHandler::new();
            let engine = Idempotency::builder().profile(profile).build().unwrap();
            let app = adapter.app(&engine, &handler);

            // Then bare keys are accepted or refused.
            let answer = send(&app, &TestRequest::payment("bare")).await;
            assert_eq!(answer.status == StatusCode::CREATED, bare, "{profile:?}");
            let n = usize::from(bare);

            // And a concurrent duplicate waits or does not.
            handler.close_gate();
            let first = send_in_task(&app, &payment());
            handler.started(n + 1).await;
            let second = send_in_task(&app, &payment());
            run_ready_tasks().await;
            assert_eq!(second.is_finished(), !waits, "{profile:?}");
            handler.open_gate();
            first.await.unwrap().assert_charge(n + 1);

            // And replays carry the profile's header.
            let again = send(&app, &payment()).await;
            assert_eq!(again.lines(header), ["true"], "{profile:?}");
            assert_eq!(handler.effects(), n + 1, "{profile:?}");
        }
    });
}

#[test]
fn each_option_of_a_profile_can_be_overridden() {
    with_each_adapter(async |adapter| {
        // Given the IETF profile with each of its options overridden.
        let handler = CountingHandler::new();
        let engine = Idempotency::builder()
            .profile(Profile::Ietf)
            .policy(Policy::new().strict(false).wait(true))
            .mismatch_status(StatusCode::BAD_REQUEST)
            .replay_header(HeaderName::from_static("x-again"))
            .build()
            .unwrap();
        let app = adapter.app(&engine, &handler);

        // When a bare key is sent twice, and then with another request.
        send(&app, &TestRequest::payment("bare"))
            .await
            .assert_charge(1);
        let again = send(&app, &TestRequest::payment("bare")).await;
        let other = send(&app, &TestRequest::payment("bare").body("{}")).await;

        // Then the overrides apply, not the profile.
        assert_eq!(again.lines("x-again"), ["true"]);
        assert!(!again.replayed());
        other.assert_problem(400, "mismatch");
    });
}

#[test]
fn a_conflicts_retry_after_is_bounded_by_the_lease_and_by_five_seconds() {
    with_each_adapter(async |adapter| {
        for (lease, seconds) in [(30, "5"), (3, "3"), (1, "1")] {
            // Given an execution whose lease has this many seconds left.
            let handler = CountingHandler::new();
            let policy = Policy::new().wait(false).lease(Duration::from_secs(lease));
            let engine = Idempotency::builder().policy(policy).build().unwrap();
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            let _first = send_in_task(&app, &payment());
            handler.started(1).await;

            // Then a duplicate's `Retry-After` is that, or five seconds if that is less.
            let answer = send(&app, &payment()).await;
            answer.assert_problem(409, "conflict");
            assert_eq!(answer.lines("retry-after"), [seconds]);
        }
    });
}

#[test]
fn an_answer_of_the_engine_is_never_stored() {
    with_each_adapter(async |adapter| {
        // Given a request refused before its execution, for each such reason.
        let handler = CountingHandler::new();
        let policy = Policy::new().max_body(20);
        let store = FaultyStore::new();
        let engine = Idempotency::builder().policy(policy).store(store.clone());
        let app = adapter.app(&engine.build().unwrap(), &handler);
        let twice = payment().key(KEY);
        send(&app, &twice).await.assert_problem(400, "invalid_key");
        let large = payment().body("x".repeat(21));
        send(&app, &large)
            .await
            .assert_problem(413, "request_too_large");
        broken_body(&app)
            .await
            .assert_problem(400, "unreadable_body");
        for _ in 0..2 {
            store.fail_next(Operation::Acquire, Fault::Unreachable);
        }
        send(&app, &payment())
            .await
            .assert_problem(503, "store_unavailable");

        // When the request is sent as it should be.
        let answer = send(&app, &payment()).await;

        // Then it executes: none of the refusals was stored.
        answer.assert_charge(1);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn the_attribute_protects_without_any_set_up() {
    with_paused_clock(async {
        // Given a router with an annotated handler and nothing else.
        let handler = CountingHandler::new();
        let app = app_without_engine(&handler);

        // When a request is sent twice.
        send(&app, &TestRequest::payment("of-this-process"))
            .await
            .assert_charge(1);
        let again = send(&app, &TestRequest::payment("of-this-process")).await;

        // Then it executes once.
        again.assert_replay_of_charge(1);
    });
}
