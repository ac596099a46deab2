//! An engine inside of a layer, with a key or a caller of its own (DESIGN.md, sections 3 and 8; invariant I2).

use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRef, Request, State},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{StatusCode, request::Parts};
use idempotent_runtime::{
    Builder, Idempotency, IdempotencyLayer, MemoryStore, OnCrash, Policy, Retention, Scope,
    idempotent, store::StoreErrorKind,
};
use tower::ServiceExt;

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Log, Operation, PAY, Server, TestRequest,
    advance, crash, in_real_time, send, send_in_task, unprotected_app, with_paused_clock,
};

/// The header of the key that the engine inside reads.
const INNER_KEY: &str = "x-payment-key";

#[derive(Clone)]
struct App {
    engine: Idempotency,
    handler: CountingHandler,
}

impl FromRef<App> for Idempotency {
    fn from_ref(app: &App) -> Self {
        app.engine.clone()
    }
}

#[idempotent(engine = State<Idempotency>)]
async fn pay(State(app): State<App>, request: Request) -> Response {
    app.handler.call(request).await
}

/// The ways to stand inside of a layer.
const INSIDE: [Adapter; 2] = [Adapter::Attribute, Adapter::Layer];

/// The routes inside: one engine that reads a header of its own.
fn inside(adapter: Adapter, engine: Builder, policy: Policy, handler: &CountingHandler) -> Router {
    let engine = engine.policy(policy.header(INNER_KEY)).build().unwrap();
    around(adapter, engine, handler)
}

fn around(adapter: Adapter, engine: Idempotency, handler: &CountingHandler) -> Router {
    match adapter {
        Adapter::Attribute => Router::new().route(PAY, post(pay)).with_state(App {
            engine,
            handler: handler.clone(),
        }),
        Adapter::Layer => unprotected_app(handler).route_layer(IdempotencyLayer::new(engine)),
    }
}

fn outside() -> IdempotencyLayer {
    IdempotencyLayer::new(Idempotency::builder().build().unwrap())
}

/// A payment with a key for each engine.
fn keyed(outer: &str, inner: &str) -> TestRequest {
    TestRequest::payment(outer).header(INNER_KEY, inner)
}

/// A router inside, what heals it, and the code with which it refuses before that.
type Refusing = (&'static str, Router, Box<dyn FnOnce()>);

fn refusing(adapter: Adapter, handler: &CountingHandler) -> Vec<Refusing> {
    let with = |builder, policy| inside(adapter, builder, policy, handler);
    let failing = |kind| {
        let store = FaultyStore::new();
        store.fail_always(Operation::Acquire, Fault::Error(kind));
        let router = with(Idempotency::builder().store(store.clone()), Policy::new());
        let heal: Box<dyn FnOnce()> = Box::new(move || store.heal());
        (router, heal)
    };
    let nothing: fn() -> Box<dyn FnOnce()> = || Box::new(|| {});
    let (unavailable, heal_unavailable) = failing(StoreErrorKind::Unavailable);
    let (full, heal_full) = failing(StoreErrorKind::Full);
    vec![
        ("store_unavailable", unavailable, heal_unavailable),
        ("overloaded", full, heal_full),
        (
            "invalid_key",
            with(Idempotency::builder(), Policy::new().uuid(true)),
            nothing(),
        ),
        (
            "request_too_large",
            with(Idempotency::builder(), Policy::new().max_body(3)),
            nothing(),
        ),
        (
            "caller_unknown",
            with(Idempotency::builder(), Policy::new().require_caller(true)),
            nothing(),
        ),
        (
            "handler_panicked",
            with(
                Idempotency::builder().scope(|_: &Parts| panic!("a panic of the scenario")),
                Policy::new(),
            ),
            nothing(),
        ),
    ]
}

#[test]
fn what_an_engine_inside_refuses_is_no_outcome_outside() {
    in_real_time(async {
        for adapter in INSIDE {
            let handler = CountingHandler::new();
            for (code, router, heal) in refusing(adapter, &handler) {
                // Given a layer around an engine that refuses before it executes anything.
                let server = Server::start(router.route_layer(outside())).await;
                let request = keyed("outer", "inner");
                let started = handler.starts();
                for _ in 0..2 {
                    let refused = server.send(&request).await;
                    assert_eq!(refused.code(), code, "{adapter:?}");
                    assert!(!refused.replayed(), "{adapter:?} {code}");
                }
                assert_eq!(handler.starts(), started, "{adapter:?} {code}");

                // When the reason for it has gone, then the same request with the same keys executes, once.
                heal();
                let again = server.send(&request).await;
                if let "store_unavailable" | "overloaded" = code {
                    again.assert_charge(started + 1);
                    server
                        .send(&request)
                        .await
                        .assert_replay_of_charge(started + 1);
                } else {
                    // The client mends its request, and keeps the key of the layer.
                    assert_eq!(again.code(), code);
                    let mended = TestRequest::payment("outer");
                    server.send(&mended).await.assert_charge(started + 1);
                    server
                        .send(&mended)
                        .await
                        .assert_replay_of_charge(started + 1);
                }
            }
        }
    });
}

#[test]
fn a_conflict_and_a_mismatch_inside_are_no_outcomes_outside() {
    with_paused_clock(async {
        for adapter in INSIDE {
            // Given an execution in flight under the inner key, by a request with another key outside.
            let handler = CountingHandler::new();
            let app = inside(
                adapter,
                Idempotency::builder(),
                Policy::new().wait(false),
                &handler,
            )
            .route_layer(outside());
            handler.close_gate();
            let first = send_in_task(&app, &keyed("a", "inner"));
            handler.started(1).await;
            for _ in 0..2 {
                let conflict = send(&app, &keyed("b", "inner")).await;
                conflict.assert_problem(409, "conflict");
                let mismatch = send(&app, &keyed("c", "inner").body("other")).await;
                mismatch.assert_problem(409, "mismatch");
            }
            handler.open_gate();
            first.await.unwrap().assert_charge(1);

            // Then a retry gets the outcome of the inner key, for which the layer has no replay header yet.
            send(&app, &keyed("b", "inner")).await.assert_charge(1);
            send(&app, &keyed("b", "inner"))
                .await
                .assert_replay_of_charge(1);
            assert_eq!(handler.starts(), 1, "{adapter:?}");
        }
    });
}

#[test]
fn what_is_not_known_inside_stays_stored_outside() {
    with_paused_clock(async {
        for adapter in INSIDE {
            // Given an execution inside that crashed.
            let handler = CountingHandler::new();
            let (store, policy) = (MemoryStore::new(), Policy::new().header(INNER_KEY));
            handler.close_gate();
            let request = TestRequest::payment("unused").header(INNER_KEY, "inner");
            let builder = || Idempotency::builder().policy(policy.clone());
            crash(adapter, builder(), store.clone(), &request, &handler).await;
            advance(Duration::from_secs(31)).await;
            let engine = builder().store(store).build().unwrap();
            let app = around(adapter, engine, &handler).route_layer(outside());

            // Then the layer keeps that answer: an effect may stand behind it.
            let request = keyed("unused", "inner");
            send(&app, &request)
                .await
                .assert_problem(409, "outcome_unknown");
            let again = send(&app, &request).await;
            assert_eq!((again.status.as_u16(), again.replayed()), (409, true));
            assert_eq!(handler.starts(), 1, "{adapter:?}");

            // And so it keeps a panic's answer, and a tombstone's.
            for (what, code) in [
                ("panic", "handler_panicked"),
                ("large", "response_not_stored"),
            ] {
                let handler = CountingHandler::responding(move |_| {
                    assert_ne!(what, "panic", "as the test wants it");
                    vec![b'x'; 2 << 20].into_response()
                });
                let engine = Idempotency::builder();
                let inner = inside(adapter, engine, Policy::new(), &handler);
                let first = inner.clone().route_layer(outside());
                send(&first, &keyed("a", "inner")).await;
                let app = inner.route_layer(outside());
                let answer = send(&app, &keyed("b", "inner")).await;
                assert_eq!(answer.code(), code, "{adapter:?}");
                assert!(send(&app, &keyed("b", "inner")).await.replayed());
                assert_eq!(handler.starts(), 1, "{adapter:?} {what}");
            }
        }
    });
}

#[test]
fn an_execution_inside_that_was_fenced_out_is_an_outcome_outside() {
    with_paused_clock(async {
        for adapter in INSIDE {
            // Given an execution inside that another process takes over, and that ends while the other one goes on.
            let handler = CountingHandler::new();
            let policy = Policy::new()
                .header(INNER_KEY)
                .on_crash(OnCrash::Retry)
                .wait_timeout(Duration::from_secs(1));
            let store = FaultyStore::new();
            let builder = || Idempotency::builder().policy(policy.clone());
            let here = builder().store(store.clone()).build().unwrap();
            let there = builder().store(store.clone()).build().unwrap();
            let app = around(adapter, here, &handler).route_layer(outside());
            let there = around(adapter, there, &handler);
            handler.close_gate();
            let request = keyed("outer", "inner");
            let first = send_in_task(&app, &request);
            handler.started(1).await;
            store.fail_always(Operation::Renew, Fault::Hang);
            advance(Duration::from_secs(31)).await;
            store.heal();
            let winner = send_in_task(&there, &request);
            handler.started(2).await;
            handler.let_through(1);
            advance(Duration::from_secs(2)).await;

            // Then its client gets a conflict, and a retry the same: something was executed for this request.
            first.await.unwrap().assert_problem(409, "conflict");
            assert!(send(&app, &request).await.replayed(), "{adapter:?}");
            handler.open_gate();
            winner.await.unwrap().assert_charge(2);
            assert_eq!(handler.starts(), 2);
        }
    });
}

/// Sends the request on to the router inside, as a handler does that had its effect before.
async fn pass_on(
    State((inner, handler)): State<(Router, CountingHandler)>,
    request: Request,
) -> Response {
    handler.call(Request::default()).await;
    inner.oneshot(request).await.unwrap()
}

/// The same after it has read the body.
async fn read_and_pass_on(
    State((inner, handler)): State<(Router, CountingHandler)>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1000).await.unwrap();
    handler.call(Request::default()).await;
    let request = Request::from_parts(head, Body::from(body));
    inner.oneshot(request).await.unwrap()
}

/// The same with the request's extensions in a request of its own.
async fn copy_and_pass_on(
    State((inner, handler)): State<(Router, CountingHandler)>,
    request: Request,
) -> Response {
    handler.call(Request::default()).await;
    let mut copy = keyed("outer", "inner").request();
    *copy.extensions_mut() = request.extensions().clone();
    inner.oneshot(copy).await.unwrap()
}

/// The same with its extensions moved to a request for another path.
async fn move_to_another_path(
    State((inner, handler)): State<(Router, CountingHandler)>,
    mut request: Request,
) -> Response {
    handler.call(Request::default()).await;
    let mut other = keyed("outer", "inner").request();
    *other.extensions_mut() = std::mem::take(request.extensions_mut());
    inner.oneshot(other).await.unwrap()
}

/// Sends a request of its own to the router inside, behind another layer, for which nothing was executed.
async fn ask_another_layer(
    State((inner, handler)): State<(Router, CountingHandler)>,
    _: Request,
) -> Response {
    handler.call(Request::default()).await;
    let request = keyed("another", "inner").request();
    inner.route_layer(outside()).oneshot(request).await.unwrap()
}

#[idempotent]
async fn protected_pass_on(state: State<(Router, CountingHandler)>, request: Request) -> Response {
    pass_on(state, request).await
}

#[test]
fn a_refusal_that_a_handler_passes_on_after_its_effect_is_an_outcome() {
    with_paused_clock(async {
        for adapter in INSIDE {
            for (what, route) in [
                ("read", post(read_and_pass_on)),
                ("copied", post(copy_and_pass_on)),
                ("protected", post(protected_pass_on)),
                ("another path", post(move_to_another_path)),
                ("another layer", post(ask_another_layer)),
            ] {
                // Given a handler that has an effect and passes its request on to an engine that refuses it.
                let (store, handler) = (FaultyStore::new(), CountingHandler::new());
                store.fail_always(Operation::Acquire, Fault::Error(StoreErrorKind::Full));
                let engine = Idempotency::builder().store(store);
                let inner = inside(adapter, engine, Policy::new(), &CountingHandler::new());
                let path = if what == "another path" {
                    "/proxy"
                } else {
                    PAY
                };
                let app = Router::new()
                    .route(path, route)
                    .with_state((inner, handler.clone()));
                let app = match what {
                    "protected" => app.layer(Idempotency::builder().build().unwrap()),
                    _ => app.route_layer(outside()),
                };
                let mut request = keyed("outer", "inner");
                request.path = path.to_owned();
                send(&app, &request).await.assert_problem(503, "overloaded");

                // Then its effect is not repeated.
                assert!(send(&app, &request).await.replayed(), "{adapter:?} {what}");
                assert_eq!(handler.effects(), 1, "{adapter:?} {what}");
            }
        }
    });
}

#[test]
fn a_decision_about_a_refusal_inside_comes_first() {
    with_paused_clock(async {
        for adapter in INSIDE {
            let store = FaultyStore::new();
            store.fail_always(Operation::Acquire, Fault::Error(StoreErrorKind::Full));
            let engine = Idempotency::builder().store(store.clone());
            let store_it = map_response(async |response: Response| (Retention::Store, response));
            let app = inside(adapter, engine, Policy::new(), &CountingHandler::new())
                .route_layer(store_it)
                .route_layer(outside());
            let request = keyed("outer", "inner");
            send(&app, &request).await.assert_problem(503, "overloaded");
            store.heal();
            assert!(send(&app, &request).await.replayed());
        }
    });
}

/// Lets in whoever sends this token.
async fn only_alice(head: Parts) -> Result<(Parts, Scope), Response> {
    match head.headers.get("authorization") {
        Some(token) if token == "Bearer alice" => Ok((head, Scope::new("alice"))),
        _ => Err((StatusCode::FORBIDDEN, "not you").into_response()),
    }
}

struct Alice;

impl idempotent_runtime::Caller for Alice {
    fn scope(&self) -> Scope {
        Scope::new("alice")
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Alice {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let (head, ()) = Request::new(()).into_parts();
        let head = std::mem::replace(parts, head);
        let (head, _) = only_alice(head).await?;
        *parts = head;
        Ok(Self)
    }
}

#[idempotent(caller = Alice)]
async fn pay_alice(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

/// Every way to name a caller inside of a layer.
fn with_callers(handler: &CountingHandler) -> Vec<(&'static str, Router)> {
    let engine = || Idempotency::builder();
    let of_engine = || engine().caller(only_alice).build().unwrap();
    vec![
        (
            "a layer's caller",
            unprotected_app(handler)
                .route_layer(IdempotencyLayer::new(engine().build().unwrap()).caller(only_alice)),
        ),
        (
            "a layer's engine's caller",
            around(Adapter::Layer, of_engine(), handler),
        ),
        (
            "a handler's engine's caller",
            around(Adapter::Attribute, of_engine(), handler),
        ),
        (
            "a handler's caller",
            Router::new()
                .route(PAY, post(pay_alice))
                .with_state(handler.clone()),
        ),
    ]
}

#[test]
fn the_caller_of_an_engine_inside_is_asked_before_its_handler_executes() {
    in_real_time(async {
        let alice = TestRequest::payment("k").header("authorization", "Bearer alice");
        let mallory = TestRequest::payment("k").header("authorization", "Bearer mallory");
        let handler = CountingHandler::new();
        for (n, (what, inner)) in with_callers(&handler).into_iter().enumerate() {
            // Given a layer without a caller around a route that has one, under the same key.
            let server = Server::start(inner.route_layer(outside())).await;

            // When somebody else sends the request, then nothing is executed, and the key stays free.
            for _ in 0..2 {
                let refused = server.send(&mallory).await;
                assert_eq!((refused.status.as_u16(), refused.text()), (403, "not you"));
                assert!(!refused.replayed(), "{what}");
            }
            assert_eq!(handler.starts(), n, "{what}");
            server.send(&alice).await.assert_charge(n + 1);
            server.send(&alice).await.assert_replay_of_charge(n + 1);
        }
    });
}

#[test]
fn a_caller_inside_of_a_layer_that_has_none_is_warned_of_once() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        for (n, (what, inner)) in with_callers(&handler).into_iter().enumerate() {
            let (log, _guard) = Log::collect();
            let app = inner.route_layer(outside());
            let alice = TestRequest::payment("k").header("authorization", "Bearer alice");
            send(&app, &alice).await.assert_charge(n + 1);
            send(&app, &alice).await.assert_replay_of_charge(n + 1);
            assert_eq!(send(&app, &TestRequest::payment("l")).await.status, 403);
            let text = log.text();
            let warned = text
                .matches("replays stored answers without asking")
                .count();
            assert_eq!(warned, 1, "{what}: {text}");
            assert!(text.contains("POST /pay"), "{text}");
        }
    });
}

#[test]
fn a_caller_inside_of_a_layer_that_has_one_is_no_reason_for_a_warning() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        for (n, (what, inner)) in with_callers(&handler).into_iter().enumerate() {
            let (log, _guard) = Log::collect();
            let app = inner.route_layer(outside().caller(only_alice));
            let alice = TestRequest::payment("k").header("authorization", "Bearer alice");
            send(&app, &alice).await.assert_charge(n + 1);
            let mallory = TestRequest::payment("k");
            assert_eq!(send(&app, &mallory).await.status, 403);
            assert!(!log.text().contains("without asking"), "{what}");
        }
    });
}
