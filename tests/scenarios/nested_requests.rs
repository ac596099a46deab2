//! Requests inside of requests, and handlers that know no engine (DESIGN.md, sections 3 and 8).

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::post,
};
use http::HeaderName;
use idempotent_runtime::{Execution, Idempotency, IdempotencyLayer, Profile, idempotent};
use tower::ServiceExt;

use crate::support::{
    Adapter, CountingHandler, PAY, Server, TestRequest, in_real_time, send, with_paused_clock,
};

/// Sends two payments, with keys of their own and the extensions of the request that it serves, as a batch handler does
/// that passes on what its layers inserted.
async fn batch(State(payments): State<Router>, request: Request) -> Response {
    let extensions = request.extensions().clone();
    let mut texts = String::new();
    for key in ["first", "second"] {
        let mut payment = TestRequest::payment(key).request();
        *payment.extensions_mut() = extensions.clone();
        let response = payments.clone().oneshot(payment).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .unwrap();
        texts.push_str(std::str::from_utf8(&body).unwrap());
        texts.push(' ');
    }
    texts.into_response()
}

#[test]
fn sub_requests_with_keys_of_their_own_are_protected() {
    with_paused_clock(async {
        for inner in [Adapter::Attribute, Adapter::Layer] {
            for outer in [true, false] {
                // Given a batch handler under one engine, whose payments are under the same engine or another one.
                let engine = Idempotency::builder().build().unwrap();
                let other = Idempotency::builder().build().unwrap();
                let handler = CountingHandler::new();
                let payments = inner.app(if outer { &engine } else { &other }, &handler);
                let app = Router::new()
                    .route("/batch", post(batch))
                    .with_state(payments)
                    .route_layer(IdempotencyLayer::new(engine));

                // When it is executed twice, under two keys of its own.
                for key in ["a", "b"] {
                    let answer = send(&app, &TestRequest::post("/batch").key(key)).await;
                    assert_eq!(answer.text(), "charge 1 charge 2 ", "{inner:?}");
                    assert!(!answer.replayed());
                }

                // Then each payment was executed once.
                assert_eq!(handler.starts(), 2, "{inner:?}");
            }
        }
    });
}

/// Sends one request inside of a batch, with the extensions of that, and answers with its text.
async fn forward(State((app, request)): State<(Router, TestRequest)>, batch: Request) -> Response {
    let mut sub_request = request.request();
    *sub_request.extensions_mut() = batch.extensions().clone();
    app.oneshot(sub_request).await.unwrap()
}

#[test]
fn the_marker_of_an_execution_counts_for_its_own_request_only() {
    with_paused_clock(async {
        for inner in [Adapter::Attribute, Adapter::Layer] {
            for same_engine in [true, false] {
                // Given a batch under the key `a`, which forwards one request with its extensions.
                let put = TestRequest::new(http::Method::PUT, PAY).body("{}");
                let forwarded = [
                    ("another key, another path", TestRequest::payment("b")),
                    ("the same key, another path", TestRequest::payment("a")),
                    ("the same key, another method", put.key("a")),
                    ("another key, quoted", TestRequest::payment("\"b\"")),
                ];
                for (what, request) in forwarded {
                    let (engine, other) = (
                        Idempotency::builder().build().unwrap(),
                        Idempotency::builder().build().unwrap(),
                    );
                    let handler = CountingHandler::new();
                    let payments = inner.app(if same_engine { &engine } else { &other }, &handler);
                    let batches = Router::new()
                        .route("/batch", post(forward))
                        .with_state((payments.clone(), request.clone()))
                        .route_layer(IdempotencyLayer::new(engine));
                    let answer = send(&batches, &TestRequest::post("/batch").key("a")).await;
                    assert_eq!(answer.text(), "charge 1", "{what}");

                    // When another batch forwards it again, then it is replayed.
                    let answer = send(&batches, &TestRequest::post("/batch").key("c")).await;
                    assert_eq!(answer.text(), "charge 1", "{what}");
                    assert_eq!(handler.starts(), 1, "{what} {inner:?}");
                }
            }
        }
    });
}

#[test]
fn a_batch_on_the_path_of_its_sub_requests_protects_each() {
    with_paused_clock(async {
        // Given a batch at the path of its payments, under the same engine: only the key differs.
        let engine = Idempotency::builder().build().unwrap();
        let handler = CountingHandler::new();
        let payments = Adapter::Layer.app(&engine, &handler);
        let batches = Router::new()
            .route(PAY, post(batch))
            .with_state(payments)
            .route_layer(IdempotencyLayer::new(engine));
        for key in ["a", "b"] {
            let answer = send(&batches, &TestRequest::post(PAY).key(key)).await;
            assert_eq!(answer.text(), "charge 1 charge 2 ");
        }
        assert_eq!(handler.starts(), 2);
    });
}

#[test]
fn a_layer_and_the_attribute_on_one_route_execute_once_in_the_layers_engine() {
    with_paused_clock(async {
        let (outside, inside) = (
            Idempotency::builder().build().unwrap(),
            Idempotency::builder().build().unwrap(),
        );
        let handler = CountingHandler::new();
        let app = Adapter::Attribute
            .app(&inside, &handler)
            .route_layer(IdempotencyLayer::new(outside));
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_charge(1);
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_replay_of_charge(1);
        // The engine inside never saw the key.
        let app = Adapter::Attribute.app(&inside, &handler);
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_charge(2);
    });
}

#[idempotent]
async fn needs_a_key(execution: Execution) -> String {
    execution.attempt().to_string()
}

async fn plain(execution: Execution) -> String {
    execution.attempt().to_string()
}

#[test]
fn a_rejected_execution_extractor_answers_in_the_engines_style() {
    with_paused_clock(async {
        let engine = Idempotency::builder()
            .problem_type_base("https://example.com/problems/")
            .build()
            .unwrap();
        let attribute = Router::new()
            .route(PAY, post(needs_a_key))
            .layer(Extension(engine.clone()));
        let layer = Router::new()
            .route(PAY, post(plain))
            .route_layer(IdempotencyLayer::new(engine));
        for app in [attribute, layer] {
            let answer = send(&app, &TestRequest::post(PAY)).await;
            answer.assert_problem(400, "missing_key");
            assert_eq!(
                answer.json()["type"],
                "https://example.com/problems/missing_key"
            );
        }
    });
}

/// Adds what layers inside add to every response, and what is true of its present body only.
async fn decorated(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-request-id", "7"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("vary", "origin"),
        ("content-length", "999"),
        ("etag", "\"old\""),
        ("cache-control", "public"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    response
}

#[test]
fn a_problem_in_the_engines_style_keeps_the_headers_of_layers_inside() {
    in_real_time(async {
        for builder in [
            Idempotency::builder().problem_type_base("https://example.com/problems/"),
            Idempotency::builder().profile(Profile::Stripe),
            Idempotency::builder().outcome_header(HeaderName::from_static("x-outcome")),
        ] {
            let app = Router::new()
                .route(PAY, post(plain))
                .route_layer(map_response(decorated))
                .route_layer(IdempotencyLayer::new(builder.build().unwrap()));
            let answer = Server::start(app).await.send(&TestRequest::post(PAY)).await;
            answer.assert_problem(400, "missing_key");
            assert_eq!(answer.lines("x-request-id"), ["7"]);
            assert_eq!(answer.lines("set-cookie"), ["a=1", "b=2"]);
            assert_eq!(answer.lines("vary"), ["origin"]);
            assert_eq!(answer.lines("cache-control"), ["no-store"]);
            assert!(!answer.headers.contains_key("etag"));
        }
    });
}
