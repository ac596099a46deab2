//! How large a request body may be (DESIGN.md, section 8): as large as its route accepts, unless the policy says.

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    routing::{any, post},
};
use idempotent_runtime::{Idempotency, IdempotencyLayer, Policy, idempotent};

use crate::support::{Adapter, CountingHandler, PAY, Server, TestRequest, in_real_time, send};

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
