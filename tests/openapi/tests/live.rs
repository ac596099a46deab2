//! Documents are valid, and the live answers are what they say (DESIGN.md, section 7).

use axum::{
    Extension, Json, Router,
    body::Body,
    http::{HeaderValue, Request, StatusCode},
};
use http_body_util::BodyExt;
use idempotent_runtime::{Idempotency, MemoryStore, Policy, Profile, idempotent};
use roas::validation::{Options, Validate};
use serde_json::{Value, json};
use tower::ServiceExt;
use utoipa::Modify;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Pays, panics, or answers with more than is stored.
#[utoipa::path(
    post,
    path = "/payments",
    request_body = u32,
    responses((status = 201, description = "paid", body = String), (status = 409, description = "no money")),
    extensions(("x-idempotent" = json!({ "required": true })))
)]
#[idempotent(required, wait = false, max_response = "64B", max_body = "1KiB")]
async fn pay(Json(amount): Json<u32>) -> (StatusCode, String) {
    assert!(amount != 13, "a panic of the handler");
    let answer = if amount == 64 {
        "x".repeat(65)
    } else {
        amount.to_string()
    };
    (StatusCode::CREATED, answer)
}

#[utoipa::path(get, path = "/payments", responses((status = 200, description = "all", body = String)))]
async fn list() -> &'static str {
    "none"
}

fn engine(profile: Profile) -> Idempotency {
    Idempotency::builder()
        .store(MemoryStore::new())
        .profile(profile)
        .policy(Policy::new())
        .problem_type_base("https://docs.example.com/problems/")
        .build()
        .unwrap()
}

/// The service and its document, as utoipa-axum makes both.
fn service(engine: &Idempotency) -> (Router, Value) {
    let (router, mut api) = OpenApiRouter::new()
        .routes(routes!(pay, list))
        .split_for_parts();
    engine.documentation().modify(&mut api);
    let router = router.layer(Extension(engine.clone()));
    (router, serde_json::to_value(&api).unwrap())
}

fn assert_valid(document: &Value) {
    let spec = serde_json::from_value::<roas::v3_1::spec::Spec>(document.clone());
    let valid = spec
        .unwrap()
        .validate(Options::IgnoreMissingTags.into(), None);
    assert!(valid.is_ok(), "{valid:?}\n{document:#}");
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Value,
}

async fn send(app: &Router, key: Option<&'static str>, body: String) -> Answer {
    let mut request = Request::post("/payments").header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", HeaderValue::from_static(key));
    }
    let request = request.body(Body::from(body)).unwrap();
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status,
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

/// Asserts that the operation's document has this answer: its status, its headers, its schema, and itself as an example.
fn assert_documented(document: &Value, answer: &Answer) {
    let responses = &document["paths"]["/payments"]["post"]["responses"];
    let response = &responses[answer.status.as_str()];
    let problem = &response["content"]["application/problem+json"];
    let code = answer.body["code"].as_str().expect("a problem");
    for name in ["retry-after", "stripe-should-retry", "www-authenticate"] {
        let documented = response["headers"][name].is_object();
        assert!(
            documented || !answer.headers.contains_key(name),
            "{code}: {name}"
        );
    }
    let schema = json!({
        "$ref": "#/components/schemas/IdempotencyProblem",
        "components": document["components"],
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&answer.body), "{code}");
    let (example, mut live) = (&problem["examples"][code]["value"], answer.body.clone());
    // Its words depend on the request.
    live["detail"] = example["detail"].clone();
    if let Some(error) = live.get_mut("error") {
        error["message"] = example["error"]["message"].clone();
    }
    assert_eq!(*example, live);
}

#[tokio::test]
async fn live_answers_are_as_the_document_of_utoipa_axum_says() {
    let quoted = |profile, key: &'static str, bare: &'static str| match profile {
        Profile::Ietf => key,
        _ => bare,
    };
    for profile in [Profile::Default, Profile::Ietf, Profile::Stripe] {
        let (app, document) = service(&engine(profile));
        assert_valid(&document);
        let first = quoted(profile, "\"1\"", "1");
        let paid = send(&app, Some(first), "7".into()).await;
        assert_eq!(paid.status, StatusCode::CREATED);
        let replay = send(&app, Some(first), "7".into()).await;
        let documented = &document["paths"]["/payments"]["post"]["responses"]["201"]["headers"];
        let replay_header = if profile == Profile::Stripe {
            "idempotent-replayed"
        } else {
            "idempotent-replay"
        };
        assert!(replay.headers.contains_key(replay_header));
        assert!(documented[replay_header].is_object(), "{documented}");

        let panic = quoted(profile, "\"2\"", "2");
        let large = quoted(profile, "\"3\"", "3");
        let too_long: &'static str = "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef012\"";
        send(&app, Some(large), "64".into()).await;
        let mut codes = Vec::new();
        for (key, body) in [
            (None, "7".to_owned()),
            (Some(too_long), "7".to_owned()),
            (Some(first), "8".to_owned()),
            (Some(panic), "13".to_owned()),
            (Some(large), "64".to_owned()),
            (Some(first), " ".repeat(2000)),
        ] {
            let answer = send(&app, key, body).await;
            assert_documented(&document, &answer);
            codes.push(answer.body["code"].as_str().unwrap().to_owned());
        }
        assert_eq!(
            codes,
            [
                "missing_key",
                "invalid_key",
                "mismatch",
                "handler_panicked",
                "response_not_stored",
                "request_too_large"
            ]
        );
    }
}

#[test]
fn only_the_operation_with_the_mark_is_completed() {
    let (_, document) = service(&engine(Profile::Default));
    let payments = &document["paths"]["/payments"];
    assert_eq!(payments["post"]["parameters"][0]["name"], "idempotency-key");
    assert_eq!(payments["post"]["parameters"][0]["required"], true);
    assert_eq!(
        payments["post"]["responses"]["409"]["description"],
        "no money"
    );
    assert!(payments["get"].get("parameters").is_none());
    assert!(payments["get"]["responses"].get("409").is_none());
}
