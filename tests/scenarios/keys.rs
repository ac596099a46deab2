//! Keys as clients send them (DESIGN.md, section 5).

use http::{HeaderValue, Request};
use idempotent_runtime::{Idempotency, Policy, scope};
use serde_json::Value;

use crate::support::{
    Adapter, Conn, CountingHandler, Server, TestRequest, in_real_time, send, with_each_adapter,
};

/// The bytes of a header line, which the vectors write as text, as hexadecimal or as a repeated piece.
fn line(vector: &Value) -> Vec<u8> {
    if let Some(text) = vector.as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(hex) = vector["hex"].as_str() {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        return (0..hex.len()).step_by(2).map(byte).collect();
    }
    let piece = |name: &str| vector[name].as_str().unwrap_or_default();
    let count = usize::try_from(vector["n"].as_u64().unwrap()).unwrap();
    [piece("pre"), &piece("repeat").repeat(count), piece("post")]
        .concat()
        .into_bytes()
}

/// A payment with these header lines, as bytes on the wire. Each vector has a scope of its own.
fn wire(id: &str, lines: &[Vec<u8>]) -> Vec<u8> {
    let head = TestRequest::post("/pay").header("x-vector", id);
    let mut wire = head.head("content-length: 0\r\nconnection: close");
    wire.truncate(wire.len() - 2);
    for line in lines {
        wire.extend_from_slice(b"Idempotency-Key: ");
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

#[test]
fn every_key_vector_holds_over_real_http() {
    in_real_time(async {
        let vectors = include_str!("../vectors/idempotency_key.json");
        let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
        assert!(vectors.len() >= 56, "vectors are missing");
        for strict in [true, false] {
            // Given a strict or a lenient policy.
            let handler = CountingHandler::new();
            let engine = Idempotency::builder()
                .policy(Policy::new().strict(strict).required(true))
                .scope(scope::header(http::HeaderName::from_static("x-vector")))
                .build()
                .unwrap();
            let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;
            for vector in &vectors {
                // When the vector's lines are sent.
                let id = vector["id"].as_str().unwrap();
                let lines = vector["lines"].as_array().unwrap();
                let lines: Vec<_> = lines.iter().map(line).collect();
                let before = handler.starts();
                let mut conn = Conn::open(server.address).await;
                conn.send(&wire(id, &lines)).await;
                let answer = conn.try_answer().await;

                // Then the request executes under the expected key, or is refused and does not execute.
                let reachable = vector["reachable"].as_bool().unwrap();
                let expected = match vector["lenient"].as_str().unwrap() {
                    "same" => vector["strict"].as_str().unwrap(),
                    _ if strict => vector["strict"].as_str().unwrap(),
                    lenient => lenient,
                };
                if !reachable {
                    // The HTTP server refuses it before the engine sees it, or the line ends or splits the request.
                    assert_eq!(handler.starts(), before, "{id}");
                    continue;
                }
                let answer = answer.unwrap_or_else(|error| panic!("{id}: {error}"));
                if let Some(key) = expected.strip_prefix("ok:") {
                    answer.assert_charge(before + 1);
                    assert_eq!(
                        handler.execution(handler.attempts().len()).key().expose(),
                        key,
                        "{id}"
                    );
                } else if let Some(length) = expected.strip_prefix("oklen:") {
                    answer.assert_charge(before + 1);
                    let execution = handler.execution(handler.attempts().len());
                    assert_eq!(execution.key().expose().len().to_string(), length, "{id}");
                } else {
                    let code = if expected == "err:Missing" {
                        "missing_key"
                    } else {
                        "invalid_key"
                    };
                    answer.assert_problem(400, code);
                    assert_eq!(handler.starts(), before, "{id}");
                }
            }
        }
    });
}

#[test]
fn quoted_and_bare_are_the_same_key() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        send(&app, &TestRequest::payment("\"k-1\""))
            .await
            .assert_charge(1);
        send(&app, &TestRequest::payment("k-1"))
            .await
            .assert_replay_of_charge(1);
        send(&app, &TestRequest::payment("\"k-1\";v=1"))
            .await
            .assert_replay_of_charge(1);
        send(&app, &TestRequest::payment("K-1"))
            .await
            .assert_charge(2);
    });
}

#[test]
fn two_key_lines_are_refused_over_real_http() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;

        // When two lines arrive, equal or not, in any spelling of the name.
        for (first, second) in [("a", "a"), ("a", "b"), ("\"a\"", "a")] {
            let request = TestRequest::payment(first).header("IDEMPOTENCY-KEY", second);
            // Then neither is chosen: the request is refused.
            server
                .send(&request)
                .await
                .assert_problem(400, "invalid_key");
        }
        assert_eq!(handler.starts(), 0);
    });
}

#[test]
fn without_a_key_the_handler_runs_as_without_the_attribute() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        for n in 1..=3 {
            send(&app, &TestRequest::post("/pay").body("{}"))
                .await
                .assert_charge(n);
        }
        assert!(handler.attempts().is_empty(), "an execution without a key");
    });
}

#[test]
fn a_missing_key_is_refused_where_one_is_required() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let policy = Policy::new().required(true);
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let app = adapter.app(&engine, &handler);
        let answer = send(&app, &TestRequest::post("/pay").body("{}")).await;
        answer.assert_problem(400, "missing_key");
        assert_eq!(handler.starts(), 0);
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_charge(1);
    });
}

#[test]
fn a_route_can_take_the_key_from_another_header() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let policy = Policy::new().header("X-Request-Token").required(true);
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let app = adapter.app(&engine, &handler);
        let answer = send(&app, &TestRequest::payment("k")).await;
        answer.assert_problem(400, "missing_key");
        assert!(answer.text().contains("X-Request-Token"), "{answer:?}");
        let request = TestRequest::post("/pay").header("x-request-token", "k");
        send(&app, &request).await.assert_charge(1);
        send(&app, &request).await.assert_replay_of_charge(1);
    });
}

#[test]
fn a_route_can_require_uuids() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let policy = Policy::new().uuid(true);
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let app = adapter.app(&engine, &handler);
        send(&app, &TestRequest::payment("order-42"))
            .await
            .assert_problem(400, "invalid_key");
        let nil = "00000000-0000-0000-0000-000000000000";
        send(&app, &TestRequest::payment(nil))
            .await
            .assert_problem(400, "invalid_key");
        let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
        send(&app, &TestRequest::payment(uuid))
            .await
            .assert_charge(1);
    });
}

#[test]
fn every_spelling_of_a_uuid_is_one_key() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            let handler = CountingHandler::new();
            let policy = Policy::new().uuid(true);
            let engine = Idempotency::builder().policy(policy).build().unwrap();
            let server = Server::start(adapter.app(&engine, &handler)).await;
            let payment = |key: &str| TestRequest::payment(key);
            let first = payment("8E03978E-40D5-43E8-BC93-6894A57F9324");
            server.send(&first).await.assert_charge(1);
            let passed_on = handler.execution(1).downstream_key("bank");
            for spelling in [
                "8e03978e-40d5-43e8-bc93-6894a57f9324",
                "8e03978e40d543e8bc936894a57f9324",
                "{8e03978e-40d5-43e8-bc93-6894a57f9324}",
                "urn:uuid:8e03978e-40d5-43e8-bc93-6894a57f9324",
                "\"8E03978e-40d5-43e8-bc93-6894a57f9324\"",
            ] {
                let replay = server.send(&payment(spelling)).await;
                replay.assert_replay_of_charge(1);
            }
            // Another one is another key, and the next service gets a key of its own for it.
            let other = payment("8e03978e-40d5-43e8-bc93-6894a57f9325");
            server.send(&other).await.assert_charge(2);
            assert_ne!(handler.execution(2).downstream_key("bank"), passed_on);
        }
    });
}

#[test]
fn a_layer_and_an_attribute_that_spell_a_uuid_differently_execute_and_store_once() {
    crate::support::with_paused_clock(async {
        // Given a layer that takes UUIDs for what they are, around a handler whose keys are texts.
        let handler = CountingHandler::new();
        let store = crate::support::FaultyStore::new();
        let builder = || Idempotency::builder().store(store.clone());
        let uuids = builder().policy(Policy::new().uuid(true)).build().unwrap();
        let app = Adapter::Attribute.app(&builder().build().unwrap(), &handler);
        let app = app.layer(idempotent_runtime::IdempotencyLayer::new(uuids));
        for spelling in [
            "8E03978E-40D5-43E8-BC93-6894A57F9324",
            "8e03978e40d543e8bc936894a57f9325",
        ] {
            let charge = handler.starts() + 1;
            let request = TestRequest::payment(spelling);
            send(&app, &request).await.assert_charge(charge);
            send(&app, &request).await.assert_replay_of_charge(charge);
        }
        assert_eq!(store.calls(crate::support::Operation::Complete), 2);
    });
}

#[test]
fn a_layer_with_opaque_keys_and_an_attribute_without_execute_and_store_once() {
    crate::support::with_paused_clock(async {
        let handler = CountingHandler::new();
        let store = crate::support::FaultyStore::new();
        let builder = || Idempotency::builder().store(store.clone());
        let opaque = builder()
            .policy(Policy::new().opaque(true))
            .build()
            .unwrap();
        // Given an engine of the attribute's own, which takes no such keys.
        let app = Adapter::Attribute.app(&builder().build().unwrap(), &handler);
        let app = app.layer(idempotent_runtime::IdempotencyLayer::new(opaque));
        for key in ["order 123", "a,b", r#"{"order":7}"#, r#""quoted""#] {
            let charge = handler.starts() + 1;
            let request = TestRequest::payment(key);
            send(&app, &request).await.assert_charge(charge);
            send(&app, &request).await.assert_replay_of_charge(charge);
        }
        assert_eq!(store.calls(crate::support::Operation::Complete), 4);
    });
}

/// A handler that reads its key from a header of its own.
#[idempotent_runtime::idempotent(header = "X-Event")]
async fn event(
    axum::extract::State(handler): axum::extract::State<CountingHandler>,
    request: axum::extract::Request,
) -> axum::response::Response {
    handler.call(request).await
}

#[test]
fn a_key_that_only_the_handler_knows_of_is_kept_in_the_layers_engine() {
    crate::support::with_paused_clock(async {
        // Given a layer whose store is the only one, around a handler without an engine.
        let (handler, store) = (CountingHandler::new(), crate::support::FaultyStore::new());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = axum::Router::new()
            .route("/pay", axum::routing::post(event))
            .layer(idempotent_runtime::IdempotencyLayer::new(engine))
            .with_state(handler.clone());

        // When its requests have no key for the layer.
        let request = TestRequest::post("/pay").header("x-event", "e1");
        send(&app, &request).await.assert_charge(1);
        send(&app, &request).await.assert_replay_of_charge(1);
        assert_eq!(store.calls(crate::support::Operation::Complete), 1);
    });
}

#[test]
fn a_key_under_the_name_of_before_rfc_6648_is_warned_of_once() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        let (log, _guard) = crate::support::Log::collect();
        let warnings = || {
            log.text()
                .matches("a request has `x-idempotency-key`")
                .count()
        };

        // Given requests whose key is in the right header, or in none.
        send(
            &app,
            &TestRequest::payment("k").header("x-idempotency-key", "a"),
        )
        .await;
        send(&app, &TestRequest::post("/pay")).await;
        assert_eq!(warnings(), 0);

        // When keys come under another name, then they execute unprotected, and the log says so once.
        let misnamed = TestRequest::post("/pay").header("x-idempotency-key", "secret-1");
        send(&app, &misnamed).await.assert_charge(3);
        send(&app, &misnamed).await.assert_charge(4);
        assert_eq!(warnings(), 1, "{}", log.text());
        assert!(!log.text().contains("secret-1"));

        // A route whose keys have that name reads it.
        let policy = Policy::new().header("X-Idempotency-Key");
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let app = adapter.app(&engine, &handler);
        send(&app, &misnamed).await.assert_charge(5);
        send(&app, &misnamed).await.assert_replay_of_charge(5);
        assert_eq!(warnings(), 1);
    });
}

#[test]
fn a_bad_key_is_refused_before_the_body_is_read_or_the_store_is_touched() {
    with_each_adapter(async |adapter| {
        // Given a request with a bad key and a body that never comes.
        let handler = CountingHandler::new();
        let store = crate::support::FaultyStore::new();
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = adapter.app(&engine, &handler);
        let (_never, body) = crate::support::frames();
        let request: Request<_> = TestRequest::payment("a,b").request_with(body);

        // When it is sent, then it is refused at once.
        let response = tower::ServiceExt::oneshot(app, request).await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(store.calls(crate::support::Operation::Acquire), 0);
    });
}

#[test]
fn no_answer_echoes_the_key() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        for key in ["secret key", "secret,key", "\"secret", "secretä"] {
            let mut request = TestRequest::post("/pay");
            let value = HeaderValue::from_bytes(key.as_bytes()).unwrap();
            request.headers.insert("idempotency-key", value);
            let answer = send(&app, &request).await;
            answer.assert_problem(400, "invalid_key");
            assert!(!answer.text().contains("secret"), "{answer:?}");
        }
    });
}
