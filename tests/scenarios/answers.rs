//! The engine's own answers (contract, section 7).

use std::time::Duration;

use axum::Router;
use http::{HeaderName, StatusCode};
use idempotent_runtime::{
    Builder, Idempotency, MemoryStore, Policy, Profile, store::StoreErrorKind,
};
use tower::ServiceExt;

use crate::support::{
    Answer, Ask, Face, Fault, Faulty, Till, Verb, ask, asking, bare_attribute, both, by_hand,
    crash, frames, pass, settle,
};

/// A line of the table: code, status, whether there is a `Retry-After`, and the action.
type Row = (&'static str, u16, bool, &'static str);

const TABLE: [Row; 12] = [
    ("missing_key", 400, false, "fix_request"),
    ("invalid_key", 400, false, "fix_request"),
    ("unreadable_body", 400, false, "retry_same_key"),
    ("request_too_large", 413, false, "fix_request"),
    ("mismatch", 409, false, "new_key"),
    ("conflict", 409, true, "retry_same_key"),
    ("outcome_unknown", 409, false, "retry_same_key"),
    ("response_not_stored", 409, false, "none"),
    ("store_unavailable", 503, true, "retry_same_key"),
    ("overloaded", 503, true, "retry_same_key"),
    ("record_unreadable", 500, false, "none"),
    ("handler_panicked", 500, false, "none"),
];

/// Quoted, so that the strict profile takes it too.
const KEY: &str = "\"k\"";

fn payment() -> Ask {
    Ask::pay(KEY)
}

/// Makes an engine of these settings give this answer.
async fn provoke(code: &str, face: Face, settings: impl Fn() -> Builder) -> Answer {
    let till = Till::new();
    let shop = |builder: Builder, till: &Till| face.shop(&builder.build().unwrap(), till);
    let with = |policy: Policy| settings().policy(policy);
    match code {
        "missing_key" => {
            let shop = shop(with(Policy::new().required(true)), &till);
            ask(&shop, &Ask::post("/pay")).await
        }
        "invalid_key" => ask(&shop(settings(), &till), &payment().key(KEY)).await,
        "unreadable_body" => broken_body(&shop(settings(), &till)).await,
        "request_too_large" => {
            let shop = shop(with(Policy::new().max_body(8)), &till);
            ask(&shop, &payment()).await
        }
        "mismatch" => {
            let shop = shop(settings(), &till);
            ask(&shop, &payment()).await.is_charge(1);
            ask(&shop, &payment().body("{}")).await
        }
        "conflict" => {
            let shop = shop(with(Policy::new().wait(false)), &till);
            till.hold();
            let _first = asking(&shop, &payment());
            till.started(1).await;
            ask(&shop, &payment()).await
        }
        "outcome_unknown" => {
            let shop = shop(settings(), &till);
            till.hold();
            crash(&shop, &payment(), &till).await;
            pass(Duration::from_secs(31)).await;
            ask(&shop, &payment()).await
        }
        "response_not_stored" => {
            let shop = shop(with(Policy::new().max_response(4)), &till);
            ask(&shop, &payment()).await.is_charge(1);
            ask(&shop, &payment()).await
        }
        "store_unavailable" => {
            let store = Faulty::new();
            store.always(Verb::Acquire, Fault::Down);
            ask(&shop(settings().store(store), &till), &payment()).await
        }
        "overloaded" => {
            let store = MemoryStore::builder().max_records(0).build();
            ask(&shop(settings().store(store), &till), &payment()).await
        }
        "record_unreadable" => {
            let store = Faulty::new();
            store.always(Verb::Acquire, Fault::Says(StoreErrorKind::Corrupt));
            ask(&shop(settings().store(store), &till), &payment()).await
        }
        "handler_panicked" => {
            let till = Till::answering(|_| panic!("as the scenario demands"));
            ask(&shop(settings(), &till), &payment()).await
        }
        other => unreachable!("no way to provoke {other}"),
    }
}

/// A request whose body breaks off.
async fn broken_body(shop: &Router) -> Answer {
    let (sender, body) = frames();
    sender
        .send(Err(std::io::ErrorKind::ConnectionReset.into()))
        .unwrap();
    let response = shop.clone().oneshot(payment().request_with(body)).await;
    Answer::read(response.unwrap()).await
}

/// That all parts of a problem are there and agree with each other.
#[track_caller]
fn is_problem(answer: &Answer, type_base: &str, (code, status, retry_after, action): Row) {
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
    both(async |face| {
        for row in TABLE {
            let answer = provoke(row.0, face, Idempotency::builder).await;
            let base = answer.json()["type"].as_str().unwrap().replace(row.0, "");
            assert!(base.starts_with("https://"), "{base}");
            is_problem(&answer, &base, row);
        }
    });
}

#[test]
fn the_ietf_profile_answers_a_mismatch_with_422() {
    both(async |face| {
        for mut row in TABLE {
            if row.0 == "mismatch" {
                row.1 = 422;
            }
            let settings = || {
                Idempotency::builder()
                    .profile(Profile::Ietf)
                    .problem_type_base("https://shop.example/problems/")
            };
            let answer = provoke(row.0, face, settings).await;
            is_problem(&answer, "https://shop.example/problems/", row);
        }
    });
}

#[test]
fn the_stripe_profile_answers_a_mismatch_with_400() {
    both(async |face| {
        for mut row in TABLE {
            if row.0 == "mismatch" {
                row.1 = 400;
            }
            let settings = || {
                Idempotency::builder()
                    .profile(Profile::Stripe)
                    .problem_type_base("urn:problem:")
            };
            is_problem(&provoke(row.0, face, settings).await, "urn:problem:", row);
        }
    });
}

#[test]
fn a_profile_decides_about_keys_waiting_and_the_replay_header() {
    both(async |face| {
        for (profile, bare, waits, header) in [
            (Profile::Default, true, true, "idempotent-replay"),
            (Profile::Ietf, false, false, "idempotent-replay"),
            (Profile::Stripe, true, false, "idempotent-replayed"),
        ] {
            // Given an engine of this profile and nothing else.
            let till = Till::new();
            let engine = Idempotency::builder().profile(profile).build().unwrap();
            let shop = face.shop(&engine, &till);

            // Then bare keys are taken or refused.
            let answer = ask(&shop, &Ask::pay("bare")).await;
            assert_eq!(answer.status == StatusCode::CREATED, bare, "{profile:?}");
            let n = usize::from(bare);

            // And a concurrent duplicate waits or does not.
            till.hold();
            let first = asking(&shop, &payment());
            till.started(n + 1).await;
            let second = asking(&shop, &payment());
            settle().await;
            assert_eq!(second.is_finished(), !waits, "{profile:?}");
            till.open();
            first.await.unwrap().is_charge(n + 1);

            // And replays carry the profile's header.
            let again = ask(&shop, &payment()).await;
            assert_eq!(again.lines(header), ["true"], "{profile:?}");
            assert_eq!(till.effects(), n + 1, "{profile:?}");
        }
    });
}

#[test]
fn each_option_of_a_profile_can_be_overridden() {
    both(async |face| {
        // Given the IETF profile with every option of it chosen differently.
        let till = Till::new();
        let engine = Idempotency::builder()
            .profile(Profile::Ietf)
            .policy(Policy::new().strict(false).wait(true))
            .mismatch_status(StatusCode::BAD_REQUEST)
            .replay_header(HeaderName::from_static("x-again"))
            .build()
            .unwrap();
        let shop = face.shop(&engine, &till);

        // When a bare key is used twice, and then for something else.
        ask(&shop, &Ask::pay("bare")).await.is_charge(1);
        let again = ask(&shop, &Ask::pay("bare")).await;
        let other = ask(&shop, &Ask::pay("bare").body("{}")).await;

        // Then what was chosen is in force, not what the profile says.
        assert_eq!(again.lines("x-again"), ["true"]);
        assert!(!again.replayed());
        other.is_problem(400, "mismatch");
    });
}

#[test]
fn a_conflict_names_a_time_that_makes_sense() {
    both(async |face| {
        for (lease, seconds) in [(30, "5"), (3, "3"), (1, "1")] {
            // Given an execution whose lease has so many seconds left.
            let till = Till::new();
            let policy = Policy::new().wait(false).lease(Duration::from_secs(lease));
            let engine = Idempotency::builder().policy(policy).build().unwrap();
            let shop = face.shop(&engine, &till);
            till.hold();
            let _first = asking(&shop, &payment());
            till.started(1).await;

            // Then a duplicate is told to come back in at most five seconds.
            let answer = ask(&shop, &payment()).await;
            answer.is_problem(409, "conflict");
            assert_eq!(answer.lines("retry-after"), [seconds]);
        }
    });
}

#[test]
fn an_answer_of_the_engine_is_never_stored() {
    both(async |face| {
        // Given a request refused before its execution, for each such reason.
        let till = Till::new();
        let policy = Policy::new().max_body(20);
        let store = Faulty::new();
        let engine = Idempotency::builder().policy(policy).store(store.clone());
        let shop = face.shop(&engine.build().unwrap(), &till);
        let twice = payment().key(KEY);
        ask(&shop, &twice).await.is_problem(400, "invalid_key");
        let large = payment().body("x".repeat(21));
        ask(&shop, &large)
            .await
            .is_problem(413, "request_too_large");
        broken_body(&shop).await.is_problem(400, "unreadable_body");
        for _ in 0..2 {
            store.next(Verb::Acquire, Fault::Down);
        }
        ask(&shop, &payment())
            .await
            .is_problem(503, "store_unavailable");

        // When it is sent as it should be.
        let answer = ask(&shop, &payment()).await;

        // Then it executes, and only now.
        answer.is_charge(1);
        assert_eq!(till.starts(), 1);
    });
}

#[test]
fn with_no_set_up_at_all_the_attribute_protects() {
    by_hand(async {
        // Given a router with an annotated handler and nothing else.
        let till = Till::new();
        let shop = bare_attribute(&till);

        // When a request is sent twice.
        ask(&shop, &Ask::pay("of-this-process")).await.is_charge(1);
        let again = ask(&shop, &Ask::pay("of-this-process")).await;

        // Then it executes once.
        again.is_replay_of_charge(1);
    });
}
