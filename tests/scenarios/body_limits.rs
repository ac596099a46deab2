//! How large a request body may be (DESIGN.md, section 8): as large as its route accepts, unless the policy says.

use std::io;

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    routing::{any, post},
};
use http_body_util::BodyExt;
use idempotent_runtime::{Idempotency, IdempotencyLayer, Policy, idempotent};
use tower::ServiceBuilder;
use tower_http::{limit::RequestBodyLimitLayer, map_request_body::MapRequestBodyLayer};

use crate::support::{
    Adapter, Conn, CountingHandler, PAY, Server, TestRequest, in_real_time, send,
};

const MIB: usize = 1024 * 1024;

#[idempotent]
async fn pay(State(handler): State<CountingHandler>, body: Bytes) -> axum::response::Response {
    handler.call(axum::extract::Request::new(body.into())).await
}

async fn plain(State(handler): State<CountingHandler>, body: Bytes) -> axum::response::Response {
    handler.call(axum::extract::Request::new(body.into())).await
}

/// An app whose handler reads its body, as most do.
fn app(adapter: Adapter, policy: Policy, handler: &CountingHandler) -> Router {
    let engine = Idempotency::builder().policy(policy).build().unwrap();
    let app = match adapter {
        Adapter::Attribute => Router::new().route(PAY, any(pay)).layer(Extension(engine)),
        Adapter::Layer => Router::new()
            .route(PAY, post(plain))
            .route_layer(IdempotencyLayer::new(engine)),
    };
    app.with_state(handler.clone())
}

fn of_size(key: Option<&str>, bytes: usize) -> TestRequest {
    let request = TestRequest::post(PAY).body(vec![b'x'; bytes]);
    match key {
        Some(key) => request.key(key),
        None => request,
    }
}

fn with_each_adapter(scenario: impl AsyncFn(Adapter)) {
    for adapter in [Adapter::Attribute, Adapter::Layer] {
        in_real_time(scenario(adapter));
    }
}

#[test]
fn a_key_makes_no_body_too_large_that_the_route_accepts() {
    with_each_adapter(async |adapter| {
        // The sizes at which each route says no, with and without a key.
        for (limit, most) in [
            (None, 2 * MIB),
            (Some(DefaultBodyLimit::max(5 * MIB)), 5 * MIB),
            (Some(DefaultBodyLimit::max(100)), 100),
        ] {
            let handler = CountingHandler::new();
            let mut app = app(adapter, Policy::new(), &handler);
            if let Some(limit) = limit {
                app = app.layer(limit);
            }
            let server = Server::start(app).await;
            for (n, key) in [(1, None), (2, Some("fits"))] {
                server.send(&of_size(key, most)).await.assert_charge(n);
            }
            server
                .send(&of_size(Some("fits"), most))
                .await
                .assert_replay_of_charge(2);
            let refused = server.send(&of_size(None, most + 1)).await;
            assert_eq!(refused.status, 413);
            let refused = server.send(&of_size(Some("large"), most + 1)).await;
            refused.assert_problem(413, "request_too_large");
            let detail = refused.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(&format!(" {most} bytes")), "{detail}");
            // The key is free.
            server
                .send(&of_size(Some("large"), most))
                .await
                .assert_charge(3);
        }
    });
}

#[test]
fn without_a_limit_of_the_route_the_engine_reads_up_to_64_mib() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let app = app(adapter, Policy::new(), &handler).layer(DefaultBodyLimit::disable());
        send(&app, &of_size(Some("k"), 3 * MIB))
            .await
            .assert_charge(1);
        send(&app, &of_size(Some("k"), 3 * MIB))
            .await
            .assert_replay_of_charge(1);
        let refused = send(&app, &of_size(Some("large"), 64 * MIB + 1)).await;
        refused.assert_problem(413, "request_too_large");
    });
}

#[test]
fn a_limit_of_the_policy_goes_before_that_of_the_route() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let app =
            app(adapter, Policy::new().max_body(10), &handler).layer(DefaultBodyLimit::max(100));
        send(&app, &of_size(Some("k"), 10)).await.assert_charge(1);
        let refused = send(&app, &of_size(Some("l"), 11)).await;
        refused.assert_problem(413, "request_too_large");
        // It is about requests with a key only.
        send(&app, &of_size(None, 11)).await.assert_charge(2);
    });
}

#[test]
fn a_limit_outside_is_known_behind_layers_that_wrap_its_error() {
    with_each_adapter(async |adapter| {
        // Given a limit outside, and a layer between that reads bodies as `AsyncRead`, as decompression does: what fails
        // there is an `io::Error`.
        let handler = CountingHandler::new();
        let stack = ServiceBuilder::new()
            .layer(RequestBodyLimitLayer::new(10))
            .layer(MapRequestBodyLayer::new(
                |body: tower_http::body::Limited<Body>| Body::new(body.map_err(io::Error::other)),
            ));
        let server = Server::start(app(adapter, Policy::new(), &handler).layer(stack)).await;

        // When a body without a stated length exceeds the limit, then its client hears that.
        let mut conn = Conn::open(server.address).await;
        let request = TestRequest::post(PAY).key("k");
        conn.send(&request.head("transfer-encoding: chunked")).await;
        conn.send(b"b\r\neleven bytes".get(..14).unwrap()).await;
        conn.send(b"\r\n0\r\n\r\n").await;
        let refused = conn.answer().await;
        refused.assert_problem(413, "request_too_large");
        assert_eq!(refused.json()["action"], "fix_request");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(!detail.contains(char::is_numeric), "{detail}");
        assert_eq!(handler.starts(), 0);
        server
            .send(&request.body("ten bytes!"))
            .await
            .assert_charge(1);
    });
}
