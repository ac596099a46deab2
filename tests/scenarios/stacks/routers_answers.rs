//! The router's own 404 and 405, which release their key, and those of handlers, which do not (DESIGN.md, section 3).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    handler::Handler,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};
use http::{Method, StatusCode};
use idempotent_runtime::{
    Execution, Idempotency, IdempotencyLayer, MemoryStore, Policy, Retention,
};
use serde_json::Value;
use tower::{Layer, ServiceBuilder};

use super::idempotency;
use crate::support::{CountingHandler, PAY, TestRequest, send, unprotected_app, with_paused_clock};

fn payment() -> TestRequest {
    TestRequest::payment("k").header("content-type", "application/json")
}

async fn charge(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

async fn pass(request: Request, next: Next) -> Response {
    next.run(request).await
}

/// An app before and after a deploy that adds the route, or the method, on one store.
struct Deploy {
    engine: Idempotency,
    handler: CountingHandler,
}

impl Deploy {
    fn new() -> Self {
        let store = MemoryStore::new();
        let engine = Idempotency::builder().store(store).build().unwrap();
        Self {
            engine,
            handler: CountingHandler::new(),
        }
    }

    fn layer(&self) -> IdempotencyLayer {
        IdempotencyLayer::new(self.engine.clone())
    }

    /// Asserts that this answer of the router is not stored: after the deploy the request executes.
    async fn assert_executes_after(&self, before: Router, status: u16) {
        for _ in 0..2 {
            let answer = send(&before, &payment()).await;
            assert_eq!((answer.status.as_u16(), answer.replayed()), (status, false));
        }
        let after = unprotected_app(&self.handler).layer(self.layer());
        send(&after, &payment()).await.assert_charge(1);
        send(&after, &payment()).await.assert_replay_of_charge(1);
    }
}

#[test]
fn a_deploy_that_adds_the_route_executes_what_was_404() {
    with_paused_clock(async {
        let other = || Router::<()>::new().route("/other", post(|| async { "other" }));
        let deploy = Deploy::new();
        deploy
            .assert_executes_after(other().layer(deploy.layer()), 404)
            .await;
        // Behind other layers on either side.
        let deploy = Deploy::new();
        let stack = ServiceBuilder::new()
            .layer(from_fn(pass))
            .layer(tower_http::compression::CompressionLayer::new())
            .layer(deploy.layer())
            .layer(from_fn(pass))
            .layer(tower_http::trace::TraceLayer::new_for_http())
            .concurrency_limit(1);
        deploy
            .assert_executes_after(other().layer(stack), 404)
            .await;
        // Inside of two engines.
        let deploy = Deploy::new();
        let twice = other().layer(deploy.layer()).layer(deploy.layer());
        deploy.assert_executes_after(twice, 404).await;
        // In a router that is nested, merged, or a service of its own.
        let deploy = Deploy::new();
        let outer = Router::new().merge(other().layer(deploy.layer()));
        deploy.assert_executes_after(outer, 404).await;
        let deploy = Deploy::new();
        let outer = Router::new().fallback_service(other().layer(deploy.layer()));
        deploy.assert_executes_after(outer, 404).await;
        let deploy = Deploy::new();
        let outer = Router::new().nest("/api", other()).layer(deploy.layer());
        deploy.assert_executes_after(outer, 404).await;
    });
}

#[test]
fn a_deploy_that_adds_the_method_executes_what_was_405() {
    with_paused_clock(async {
        let only_get = || Router::<()>::new().route(PAY, get(|| async { "a payment" }));
        let deploy = Deploy::new();
        deploy
            .assert_executes_after(only_get().layer(deploy.layer()), 405)
            .await;
        let deploy = Deploy::new();
        deploy
            .assert_executes_after(only_get().route_layer(deploy.layer()), 405)
            .await;
        let deploy = Deploy::new();
        let method: MethodRouter = get(|| async { "a payment" }).layer(deploy.layer());
        deploy
            .assert_executes_after(Router::new().route(PAY, method), 405)
            .await;
        let deploy = Deploy::new();
        let stack = ServiceBuilder::new()
            .layer(deploy.layer())
            .layer(from_fn(pass));
        deploy
            .assert_executes_after(only_get().route_layer(stack), 405)
            .await;
        // The `route_layer` of one route leaves the 405 out.
        let deploy = Deploy::new();
        let method: MethodRouter = get(|| async { "a payment" }).route_layer(deploy.layer());
        deploy
            .assert_executes_after(Router::new().route(PAY, method), 405)
            .await;
    });
}

#[test]
fn the_405_keeps_its_allow_header() {
    with_paused_clock(async {
        let app: Router = Router::new()
            .route(PAY, get(|| async {}).put(|| async {}))
            .layer(idempotency());
        for _ in 0..2 {
            let answer = send(&app, &payment()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.lines("allow")),
                (405, vec!["GET,HEAD,PUT"])
            );
        }
    });
}

#[test]
fn a_flood_of_404s_leaves_no_records() {
    with_paused_clock(async {
        let store = MemoryStore::builder().max_records(100).build();
        let engine = Idempotency::builder().store(store).build().unwrap();
        let handler = CountingHandler::new();
        let app = unprotected_app(&handler).layer(IdempotencyLayer::new(engine));
        for n in 0..1000 {
            let request = TestRequest::post(format!("/{n}")).key(&format!("k{n}"));
            assert_eq!(send(&app, &request).await.status, 404);
        }
        send(&app, &payment()).await.assert_charge(1);
    });
}

/// Asserts that the second request replays this status.
async fn assert_stored(what: &str, app: Router, status: u16) {
    let first = send(&app, &payment()).await;
    assert_eq!(
        (first.status.as_u16(), first.replayed()),
        (status, false),
        "{what}"
    );
    let again = send(&app, &payment()).await;
    assert_eq!(
        (again.status.as_u16(), again.replayed()),
        (status, true),
        "{what}"
    );
}

#[test]
fn a_handlers_own_404_and_405_are_stored() {
    with_paused_clock(async {
        for status in [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED] {
            let code = status.as_u16();
            let bare = || CountingHandler::responding(move |_| status.into_response());
            let handler = bare();
            assert_stored(
                "a route",
                unprotected_app(&handler).layer(idempotency()),
                code,
            )
            .await;
            assert_eq!(handler.starts(), 1);
            let handler = bare();
            let app = unprotected_app(&handler).route_layer(idempotency());
            assert_stored("a route, on routes only", app, code).await;
            assert_eq!(handler.starts(), 1);
            let handler = bare();
            let app = Router::new()
                .fallback(charge)
                .layer(idempotency())
                .with_state(handler.clone());
            assert_stored("a fallback", app, code).await;
            assert_eq!(handler.starts(), 1);
            let handler = bare();
            let app = Router::new()
                .route(PAY, get(|| async {}))
                .method_not_allowed_fallback(charge)
                .layer(idempotency())
                .with_state(handler.clone());
            assert_stored("a fallback for methods", app, code).await;
            assert_eq!(handler.starts(), 1);
            let handler = bare();
            let app = Router::new()
                .route(PAY, any(charge))
                .layer(idempotency())
                .with_state(handler.clone());
            assert_stored("any method", app, code).await;
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn an_answer_that_a_handler_gave_is_recognised_by_each_of_its_signs() {
    with_paused_clock(async {
        let starts = Arc::new(AtomicUsize::new(0));
        // In fallbacks, where no route matched either.
        macro_rules! app {
            (($($argument:ident: $ty:ty),*) => $answer:expr) => {{
                let starts = Arc::clone(&starts);
                let handler = move |$($argument: $ty),*| {
                    starts.fetch_add(1, Ordering::SeqCst);
                    async move { $answer }
                };
                Router::<()>::new().fallback(handler).layer(idempotency())
            }};
        }
        let bare = StatusCode::NOT_FOUND;
        let apps = [
            (
                "waits",
                app!(() => {
                    tokio::task::yield_now().await;
                    bare
                }),
            ),
            ("has a body", app!(() => (bare, "none here"))),
            ("has a header", app!(() => ([("x-searched", "all")], bare))),
            ("keeps it", app!(() => (Retention::Store, bare))),
            (
                "reads the body",
                app!((body: String) => {
                    drop(body);
                    bare
                }),
            ),
            (
                "reads JSON",
                app!((json: Result<Json<Value>, axum::extract::rejection::JsonRejection>) => {
                        drop(json);
                        bare
                    }
                ),
            ),
            (
                "reads the request",
                app!((request: Request) => {
                    let _body = axum::body::to_bytes(request.into_body(), 1000).await;
                    bare
                }),
            ),
            (
                "asks for the execution",
                app!((execution: Execution) => {
                    assert_eq!(execution.attempt(), 1);
                    bare
                }),
            ),
            (
                "looks at the execution",
                app!((request: Request) => {
                    let execution = Execution::from_extensions(request.extensions());
                    assert!(execution.is_some());
                    bare
                }),
            ),
            (
                "copies the extensions",
                app!((request: Request) => {
                    drop(request.extensions().clone());
                    bare
                }),
            ),
        ];
        for (n, (what, app)) in apps.into_iter().enumerate() {
            assert_stored(what, app, 404).await;
            assert_eq!(starts.load(Ordering::SeqCst), n + 1, "{what}");
        }
        // With none of these signs it is taken for the router's: such a fallback has to say that it had an effect.
        let app = app!(() => bare);
        for _ in 0..2 {
            assert!(!send(&app, &payment()).await.replayed());
        }
    });
}

#[test]
fn a_matched_routes_404_is_stored_whatever_it_looks_like() {
    with_paused_clock(async {
        let starts = Arc::new(AtomicUsize::new(0));
        let bare = || {
            let starts = Arc::clone(&starts);
            move || {
                starts.fetch_add(1, Ordering::SeqCst);
                async { StatusCode::NOT_FOUND }
            }
        };
        let nested = || Router::<()>::new().route(PAY, post(bare()));
        let apps = [
            ("a route", nested().layer(idempotency())),
            (
                "a parameter",
                Router::new()
                    .route(
                        "/{any}",
                        post({
                            let bare = bare();
                            move |Path(_): Path<String>| bare()
                        }),
                    )
                    .layer(idempotency()),
            ),
            (
                "the layer of a handler",
                Router::new().route(PAY, post(Handler::layer(bare(), idempotency()))),
            ),
            (
                "a whole router behind a layer",
                Router::new().route_service(PAY, idempotency().layer(nested())),
            ),
        ];
        for (n, (what, app)) in apps.into_iter().enumerate() {
            assert_stored(what, app, 404).await;
            assert_eq!(starts.load(Ordering::SeqCst), n + 1, "{what}");
        }
    });
}

#[test]
fn around_a_whole_router_nothing_is_taken_for_its_own_answer() {
    with_paused_clock(async {
        // Given a layer around a router as a service: it cannot see which route matched.
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&starts);
        let router: Router = Router::new().route(
            PAY,
            post(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                async { StatusCode::NOT_FOUND }
            }),
        );
        let service = idempotency().layer(router);
        for replayed in [false, true] {
            let response = tower::ServiceExt::oneshot(service.clone(), payment().request());
            let response: http::Response<Body> = response.await.unwrap();
            assert_eq!(response.status(), 404);
            assert_eq!(
                response.headers().contains_key("idempotent-replay"),
                replayed
            );
        }
        assert_eq!(starts.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_route_without_a_key_gets_the_routers_answer_unchanged() {
    with_paused_clock(async {
        let app: Router = Router::new()
            .route("/other", post(|| async {}))
            .layer(idempotency().policy(Policy::new().required(true)));
        // The layer is outside of the router's answer: a key is required for it too.
        send(&app, &TestRequest::post("/none"))
            .await
            .assert_problem(400, "missing_key");
        let get = TestRequest::new(Method::GET, "/none");
        assert_eq!(send(&app, &get).await.status, 404);
    });
}
