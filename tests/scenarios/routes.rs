//! Routes: the same key on another route is another key (DESIGN.md, section 6).

use std::time::Duration;

use axum::{
    Extension, Router,
    extract::{Path, Request, State},
    middleware::map_request,
    routing::{any, post},
};
use http::Method;
use idempotent_runtime::{
    Idempotency, IdempotencyLayer, MemoryStore, Policy, Recovery, idempotent,
};

use crate::support::{
    Adapter, CountingHandler, Server, TestRequest, advance, crash, in_real_time, send,
    unprotected_app, with_each_adapter, with_paused_clock,
};

#[idempotent]
async fn pay(
    State(handler): State<CountingHandler>,
    request: axum::extract::Request,
) -> axum::response::Response {
    handler.call(request).await
}

#[idempotent(name = "payments")]
async fn named(
    State(handler): State<CountingHandler>,
    request: axum::extract::Request,
) -> axum::response::Response {
    handler.call(request).await
}

async fn bare(
    State(handler): State<CountingHandler>,
    request: axum::extract::Request,
) -> axum::response::Response {
    handler.call(request).await
}

fn engine() -> Idempotency {
    Idempotency::builder().build().unwrap()
}

/// A router with these handlers at `/pay` and `/refund`.
fn pair(adapter: Adapter, engine: &Idempotency) -> Router<CountingHandler> {
    match adapter {
        Adapter::Attribute => Router::new()
            .route("/pay", any(pay))
            .route("/refund", any(pay))
            .route("/orders/{id}", any(pay)),
        Adapter::Layer => Router::new()
            .route("/pay", any(bare))
            .route("/refund", any(bare))
            .route("/orders/{id}", any(bare))
            .route_layer(IdempotencyLayer::new(engine.clone())),
    }
}

/// Sends the same key and body to each of these endpoints, and asserts that each is a request of its own.
async fn assert_all_execute(app: &Router, requests: &[TestRequest]) {
    for (n, request) in requests.iter().enumerate() {
        send(app, &request.clone().key("k").body("{}"))
            .await
            .assert_charge(n + 1);
    }
    for (n, request) in requests.iter().enumerate() {
        let again = send(app, &request.clone().key("k").body("{}")).await;
        again.assert_replay_of_charge(n + 1);
    }
}

#[test]
fn equal_keys_on_two_routes_or_methods_are_different_keys() {
    with_each_adapter(async |adapter| {
        let (engine, handler) = (engine(), CountingHandler::new());
        let app = pair(adapter, &engine)
            .layer(Extension(engine.clone()))
            .with_state(handler.clone());
        assert_all_execute(
            &app,
            &[
                TestRequest::post("/pay"),
                TestRequest::post("/refund"),
                TestRequest::new(Method::PUT, "/pay"),
                TestRequest::new(Method::PATCH, "/pay"),
                TestRequest::new(Method::DELETE, "/pay"),
            ],
        )
        .await;
        assert_eq!(handler.starts(), 5);
    });
}

#[test]
fn nested_routers_keep_the_full_path() {
    with_each_adapter(async |adapter| {
        let (engine, handler) = (engine(), CountingHandler::new());
        let inner = || pair(adapter, &engine);
        // Given the same router nested in every way, and in itself.
        let app = Router::new()
            .merge(inner())
            .nest("/v1", inner())
            .nest("/v2", inner())
            .nest("/deep", Router::new().nest("/er", inner()))
            .nest_service("/service", inner().with_state(handler.clone()))
            .nest_service("/other", inner().with_state(handler.clone()))
            .nest("/tenants/{tenant}", inner())
            .layer(Extension(engine.clone()))
            .with_state(handler.clone());

        // Then equal keys and bodies on different full paths are different requests.
        let paths = [
            "/pay",
            "/refund",
            "/v1/pay",
            "/v2/pay",
            "/v1/refund",
            "/deep/er/pay",
            "/service/pay",
            "/other/pay",
            "/other/refund",
        ];
        assert_all_execute(&app, &paths.map(TestRequest::post)).await;

        // And on one route, a parameter of the path is part of what is asked for.
        let base = handler.starts();
        let order = |path: &str| TestRequest::post(path).key("p").body("{}");
        send(&app, &order("/tenants/a/orders/1"))
            .await
            .assert_charge(base + 1);
        send(&app, &order("/tenants/a/orders/2"))
            .await
            .assert_problem(409, "mismatch");
        send(&app, &order("/tenants/b/orders/1"))
            .await
            .assert_problem(409, "mismatch");
        send(&app, &order("/tenants/a/orders/1"))
            .await
            .assert_replay_of_charge(base + 1);
    });
}

#[test]
fn a_layer_around_a_nested_router_sees_the_full_path() {
    with_paused_clock(async {
        let (engine, handler) = (engine(), CountingHandler::new());
        let inner = Router::new()
            .route("/pay", post(bare))
            .layer(IdempotencyLayer::new(engine.clone()))
            .with_state(handler.clone());
        let app = Router::new()
            .nest_service("/a", inner.clone())
            .nest_service("/b", inner.clone())
            .nest("/c", inner.clone())
            .merge(inner);
        let paths = ["/a/pay", "/b/pay", "/c/pay", "/pay"];
        assert_all_execute(&app, &paths.map(TestRequest::post)).await;
    });
}

#[test]
fn without_a_route_a_key_is_compared_and_not_shared_between_paths() {
    with_paused_clock(async {
        // Given services that no router matched a template for: fallbacks, nested ones, and a layer around a whole app.
        let (engine, handler) = (engine(), CountingHandler::new());
        let layer = || IdempotencyLayer::new(engine.clone());
        let fallback = || Router::new().fallback(bare).with_state(handler.clone());
        let whole = || {
            let app = Router::new().route("/{*path}", any(bare));
            tower::Layer::layer(&layer(), app.with_state(handler.clone()))
        };
        let apps = [
            fallback().layer(layer()),
            Router::new().fallback_service(whole()),
            Router::new().nest("/a", fallback().layer(layer())),
            Router::new().nest_service("/a", fallback().layer(layer())),
            Router::new().nest_service("/a", tower::Layer::layer(&layer(), fallback())),
            Router::new().nest("/a/{t}", fallback().layer(layer())),
        ];
        for (n, app) in apps.iter().enumerate() {
            let request = |path: &str| TestRequest::post(path).key(&format!("k{n}"));
            let before = handler.starts();
            send(app, &request("/a/one"))
                .await
                .assert_charge(before + 1);

            // Then another path is a mismatch, another method another key, and the same request a replay.
            send(app, &request("/a/two"))
                .await
                .assert_problem(409, "mismatch");
            let put = TestRequest::new(Method::PUT, "/a/one").key(&format!("k{n}"));
            send(app, &put).await.assert_charge(before + 2);
            send(app, &request("/a/one"))
                .await
                .assert_replay_of_charge(before + 1);
        }
    });
}

#[test]
fn a_name_replaces_method_and_route_as_the_endpoint() {
    with_paused_clock(async {
        let (engine, handler) = (engine(), CountingHandler::new());
        // Given a route with a `name`, whose path changed between two requests.
        let app = |path: &str| {
            Router::new()
                .route(path, post(named))
                .layer(Extension(engine.clone()))
                .with_state(handler.clone())
        };
        send(&app("/old"), &TestRequest::post("/old").key("k"))
            .await
            .assert_charge(1);

        // Then the record is found under the new path, as a mismatch: the path is part of the fingerprint.
        let moved = send(&app("/new"), &TestRequest::post("/new").key("k")).await;
        moved.assert_problem(409, "mismatch");
        send(&app("/old"), &TestRequest::post("/old").key("k"))
            .await
            .assert_replay_of_charge(1);
    });
}

#[test]
fn what_a_layer_is_told_counts_also_after_it_served_requests() {
    with_paused_clock(async {
        // Given a layer that has served a request, and a crashed execution.
        let (handler, store) = (CountingHandler::new(), MemoryStore::new());
        let crashed = TestRequest::payment("crashed");
        handler.close_gate();
        let dying = Idempotency::builder();
        crash(Adapter::Layer, dying, store.clone(), &crashed, &handler).await;
        handler.open_gate();
        advance(Duration::from_secs(31)).await;
        let engine = Idempotency::builder().store(store).build().unwrap();
        let app = |layer: IdempotencyLayer| unprotected_app(&handler).route_layer(layer);
        let layer = IdempotencyLayer::new(engine);
        let first = send(&app(layer.clone()), &TestRequest::payment("k")).await;
        first.assert_charge(2);

        // When copies of it are told something else, then each does what it was told.
        let small = app(layer.clone().policy(Policy::new().max_body(1)));
        let refused = send(&small, &TestRequest::payment("other").body("two")).await;
        refused.assert_problem(413, "request_too_large");
        let named = app(layer.clone().endpoint("another endpoint"));
        send(&named, &TestRequest::payment("k"))
            .await
            .assert_charge(3);
        let recovering = app(layer.clone().recover(async |_| Recovery::NotExecuted));
        send(&recovering, &crashed).await.assert_charge(4);

        // And it goes on as before.
        send(&app(layer), &TestRequest::payment("k"))
            .await
            .assert_replay_of_charge(2);
    });
}

#[test]
fn the_layer_covers_the_configured_methods() {
    with_paused_clock(async {
        let (engine, handler) = (engine(), CountingHandler::new());
        let with = |layer: IdempotencyLayer| {
            let app = Router::new().route("/pay", any(bare)).route_layer(layer);
            app.with_state(handler.clone())
        };
        let layer = IdempotencyLayer::new(engine.clone()).policy(Policy::new().required(true));
        let app = with(layer.clone());
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            // Safe methods are not covered, with a key or without.
            for _ in 0..2 {
                let answer = send(&app, &TestRequest::new(method.clone(), "/pay").key("k")).await;
                assert_eq!(answer.status, 201, "{method}");
                assert!(!answer.replayed(), "{method}");
            }
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            send(&app, &TestRequest::new(method, "/pay"))
                .await
                .assert_problem(400, "missing_key");
        }
        let app = with(layer.methods([Method::POST]));
        send(&app, &TestRequest::post("/pay"))
            .await
            .assert_problem(400, "missing_key");
        assert_eq!(
            send(&app, &TestRequest::new(Method::PUT, "/pay"))
                .await
                .status,
            201
        );
    });
}

#[test]
fn a_layer_outside_and_the_attribute_inside_execute_and_store_once() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let store = crate::support::FaultyStore::new();
        let inside = Idempotency::builder().store(store.clone()).build().unwrap();
        let outside = Idempotency::builder().store(store.clone()).build().unwrap();
        for (outside, key) in [(&inside, "same engine"), (&outside, "two engines")] {
            let acquired = store.calls(crate::support::Operation::Acquire);
            let app = Router::new()
                .route("/pay", post(pay))
                .route_layer(Extension(inside.clone()))
                .route_layer(IdempotencyLayer::new(outside.clone()))
                .with_state(handler.clone());
            let before = handler.starts();
            let request = TestRequest::post("/pay").key(&format!("{key:?}"));
            send(&app, &request).await.assert_charge(before + 1);
            send(&app, &request)
                .await
                .assert_replay_of_charge(before + 1);
            assert_eq!(handler.starts(), before + 1);
            assert_eq!(
                store.calls(crate::support::Operation::Acquire),
                acquired + 2
            );
        }
        assert_eq!(store.calls(crate::support::Operation::Complete), 2);
    });
}

#[test]
fn an_execution_that_calls_the_app_itself_is_not_mistaken_for_a_retry() {
    with_paused_clock(async {
        // Given a handler that itself sends a request with the same key to another route of the app.
        #[idempotent]
        async fn outer(State(handler): State<CountingHandler>, Path(()): Path<()>) -> String {
            let app = pair(Adapter::Attribute, &engine()).with_state(handler);
            send(&app, &TestRequest::post("/refund").key("k"))
                .await
                .text()
                .to_owned()
        }
        let handler = CountingHandler::new();
        let app = Router::new()
            .route("/pay", post(outer))
            .layer(Extension(engine()))
            .with_state(handler.clone());
        let first = send(&app, &TestRequest::post("/pay").key("k")).await;
        assert_eq!(first.text(), "charge 1");
        let again = send(&app, &TestRequest::post("/pay").key("k")).await;
        assert_eq!((again.text(), handler.starts()), ("charge 1", 1));
    });
}

/// Rewrites the URI to the one in a header, as middleware does that reads a tenant or a version from elsewhere.
async fn rewritten(mut request: Request) -> Request {
    if let Some(uri) = request.headers_mut().remove("x-rewrite") {
        *request.uri_mut() = uri.to_str().unwrap().parse().unwrap();
    }
    request
}

#[test]
fn what_a_middleware_writes_into_the_uri_counts_beside_what_was_sent() {
    in_real_time(async {
        let handler = CountingHandler::new();
        for (attempt, adapter) in [Adapter::Attribute, Adapter::Layer].into_iter().enumerate() {
            for nested in [false, true] {
                // Given middleware that rewrites below the router, outside of the engine.
                let routes = pair(adapter, &engine()).route_layer(map_request(rewritten));
                let routes = routes.with_state(handler.clone());
                let (prefix, app) = if nested {
                    ("/v1", Router::new().nest("/v1", routes))
                } else {
                    ("", routes)
                };
                let server = Server::start(app.layer(Extension(engine()))).await;
                let to = |sent: &str, uri: &str| {
                    let request = TestRequest::post(format!("{prefix}{sent}"))
                        .key("k")
                        .body("{}");
                    match uri {
                        "" => request,
                        uri => request.header("x-rewrite", uri),
                    }
                };
                let before = handler.starts();
                let first = to("/pay?a=1", "/pay?a=1&tenant=7");
                server.send(&first).await.assert_charge(before + 1);

                // Then the same rewriting is the same request, and any other is another one.
                server
                    .send(&first)
                    .await
                    .assert_replay_of_charge(before + 1);
                for other in [
                    to("/pay?a=1", "/pay?a=1&tenant=8"),
                    to("/pay?a=1", "/pay?a=1"),
                    to("/pay?a=1", ""),
                    to("/pay?a=1", "/pay"),
                    to("/pay?a=1", "/?a=1&tenant=7"),
                    to("/pay?a=2", "/pay?a=1&tenant=7"),
                    to("/pay", "/pay?a=1&tenant=7"),
                ] {
                    let answer = server.send(&other).await;
                    assert_eq!(answer.code(), "mismatch", "{attempt} {nested} {other:?}");
                }
                assert_eq!(handler.starts(), before + 1);
            }
        }
    });
}
