//! Profiles, and the details of the engine's own answers (DESIGN.md, section 7); `answers` has the table.

use std::time::Duration;

use axum::Router;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use idempotent_runtime::{BuildError, Idempotency, Policy, Profile};
use tower::ServiceExt;
use tower_http::limit::RequestBodyLimitLayer;

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Operation, TestRequest, TestResponse, advance,
    app_without_engine, frames, run_ready_tasks, send, send_in_task, with_each_adapter,
    with_paused_clock,
};

/// Quoted, so that the strict profile accepts it too.
const KEY: &str = "\"k\"";

fn payment() -> TestRequest {
    TestRequest::payment(KEY)
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

#[test]
fn a_profile_decides_about_keys() {
    with_each_adapter(async |adapter| {
        // By profile: whether a bare key is accepted, one with a space, and whether quotes belong to the key.
        for (profile, bare, space, quotes) in [
            (Profile::Default, true, false, false),
            (Profile::Ietf, false, false, false),
            (Profile::Stripe, true, true, true),
        ] {
            let handler = CountingHandler::new();
            let engine = Idempotency::builder().profile(profile).build().unwrap();
            let app = adapter.app(&engine, &handler);
            for (key, accepted) in [("bare", bare), ("order 123", space), ("\"quoted\"", true)] {
                let answer = send(&app, &TestRequest::payment(key)).await;
                let expected = if accepted { 201 } else { 400 };
                assert_eq!(answer.status, expected, "{profile:?} {key}");
            }
            if bare {
                let before = handler.effects();
                send(&app, &TestRequest::payment("quoted")).await;
                assert_eq!(
                    handler.effects() - before,
                    usize::from(quotes),
                    "{profile:?}"
                );
            }
        }
    });
}

#[test]
fn in_every_profile_a_duplicate_waits_before_it_gets_a_conflict() {
    with_each_adapter(async |adapter| {
        for (profile, seconds) in [
            (Profile::Default, 30),
            (Profile::Ietf, 5),
            (Profile::Stripe, 5),
        ] {
            // Given an execution that takes longer than a duplicate waits.
            let handler = CountingHandler::new();
            let engine = Idempotency::builder().profile(profile).build().unwrap();
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            let first = send_in_task(&app, &payment());
            handler.started(1).await;
            let second = send_in_task(&app, &payment());

            // Then the duplicate gets its conflict after that time, and not before.
            run_ready_tasks().await;
            advance(Duration::from_secs(seconds - 1)).await;
            assert!(!second.is_finished(), "{profile:?}");
            advance(Duration::from_secs(2)).await;
            assert!(second.is_finished(), "{profile:?}");
            second.await.unwrap().assert_problem(409, "conflict");
            handler.open_gate();
            first.await.unwrap().assert_charge(1);
        }
    });
}

#[test]
fn every_value_of_the_header_is_a_key_with_the_stripe_profile() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().profile(Profile::Stripe);
        let app = adapter.app(&engine.build().unwrap(), &handler);
        let longest = "x".repeat(255);
        let keys: [&[u8]; 13] = [
            b"order 123",
            b"a,b",
            br#"{"order":7}"#,
            br"back\slash",
            b"\"",
            b"\"k\"",
            b"k",
            b"\"k",
            b"k;v=1",
            b"\xc3\xa9",
            b"\xe9",
            b"\xe8",
            longest.as_bytes(),
        ];
        for (n, key) in keys.into_iter().enumerate() {
            // When a request with this key is sent twice, then it executes once, and no other key is the same.
            let mut request = TestRequest::post("/pay");
            let value = HeaderValue::from_bytes(key).unwrap();
            request.headers.append("idempotency-key", value);
            send(&app, &request).await.assert_charge(n + 1);
            let again = send(&app, &request).await;
            assert_eq!(again.lines("idempotent-replayed"), ["true"], "{key:?}");
            assert_eq!(handler.effects(), n + 1);
        }
        for bad in ["", " ", "\t", &"x".repeat(256)] {
            let answer = send(&app, &TestRequest::payment(bad)).await;
            answer.assert_problem(400, "invalid_key");
        }
        let two = TestRequest::payment("k").key("k");
        send(&app, &two).await.assert_problem(400, "invalid_key");
    });
}

#[test]
fn each_option_of_a_profile_can_be_overridden() {
    with_each_adapter(async |adapter| {
        // Given the IETF profile with each of its options overridden.
        let handler = CountingHandler::new();
        let engine = Idempotency::builder()
            .profile(Profile::Ietf)
            .policy(Policy::new().strict(false))
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

        // And so with that of Stripe: a rule about the form of keys goes before its own.
        for (policy, bare) in [
            (Policy::new().opaque(false), 201),
            (Policy::new().strict(true), 400),
            (Policy::new().uuid(true), 400),
        ] {
            let engine = Idempotency::builder().profile(Profile::Stripe);
            let engine = engine.policy(policy.wait(false)).build().unwrap();
            let app = adapter.app(&engine, &CountingHandler::new());
            let answer = send(&app, &TestRequest::payment("a b")).await;
            answer.assert_problem(400, "invalid_key");
            let answer = send(&app, &TestRequest::payment("bare")).await;
            assert_eq!(answer.status, bare);
        }
    });
}

#[test]
fn the_headers_for_replays_and_outcomes_cannot_be_one() {
    for profile in [Profile::Default, Profile::Stripe] {
        let name = HeaderName::from_static("idempotent-replayed");
        let built = Idempotency::builder().profile(profile);
        let built = built.outcome_header(name.clone()).build();
        match profile {
            Profile::Stripe => assert_eq!(built.unwrap_err(), BuildError::SameHeader { name }),
            _ => assert!(built.is_ok()),
        }
    }
}

#[test]
fn a_body_over_the_limit_of_a_layer_outside_is_refused_without_a_number() {
    with_paused_clock(async {
        for (max_body, size, named) in [(None, 1500, None), (Some(700), 800, Some("700"))] {
            // Given a layer outside with a limit of 1,000 bytes, and a route with one of its own.
            let handler = CountingHandler::new();
            let policy = max_body.map_or(Policy::new(), |most| Policy::new().max_body(most));
            let engine = Idempotency::builder().policy(policy).build().unwrap();
            let app = Adapter::Attribute.app(&engine, &handler);
            let app = app.layer(RequestBodyLimitLayer::new(1000));

            // When a body without a length is over one of them.
            let (sender, body) = frames();
            sender
                .send(Ok(Frame::data("x".repeat(size).into())))
                .unwrap();
            drop(sender);
            let response = app.oneshot(payment().request_with(body)).await;
            let answer = TestResponse::read(response.unwrap()).await;

            // Then the detail names the limit only where that is ours.
            answer.assert_problem(413, "request_too_large");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            let numbers: Vec<_> = detail.split(|c: char| !c.is_ascii_digit()).collect();
            let numbers: Vec<_> = numbers.into_iter().filter(|n| !n.is_empty()).collect();
            assert_eq!(numbers, Vec::from_iter(named), "{detail}");
            assert_eq!(handler.starts(), 0);
        }
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
