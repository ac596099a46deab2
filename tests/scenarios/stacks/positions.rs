//! Each place that a layer can have (DESIGN.md, section 8).

use std::convert::Infallible;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Request, State},
    handler::Handler,
    response::Response,
    routing::{any, post, post_service},
};
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use idempotent_runtime::{Idempotency, IdempotencyLayer, MemoryStore, idempotent};
use serde_json::Value;
use tokio::net::TcpListener;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use super::{assert_serves, engine, idempotency, payment};
use crate::support::{
    Conn, CountingHandler, H2Conn, PAY, TestRequest, TestResponse, in_real_time, send,
    unprotected_app, with_paused_clock,
};

async fn charge(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

#[idempotent]
async fn annotated(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

/// The handler as a plain service.
fn service(
    handler: &CountingHandler,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let handler = handler.clone();
    service_fn(move |request| {
        let answer = handler.clone().call(request);
        async { Ok::<_, Infallible>(answer.await) }
    })
}

#[test]
pub(super) fn every_position_in_a_router() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let layer = idempotency;
        let apps = [
            ("Router::layer", unprotected_app(&handler).layer(layer())),
            (
                "Router::route_layer",
                unprotected_app(&handler).route_layer(layer()),
            ),
            (
                "MethodRouter::layer",
                Router::new()
                    .route(PAY, post(charge).layer(layer()))
                    .with_state(handler.clone()),
            ),
            (
                "MethodRouter::route_layer",
                Router::new()
                    .route(PAY, post(charge).route_layer(layer()))
                    .with_state(handler.clone()),
            ),
            (
                "Handler::layer",
                Router::new()
                    .route(PAY, post(charge.layer(layer())))
                    .with_state(handler.clone()),
            ),
            (
                "post_service",
                Router::new().route(PAY, post_service(layer().layer(service(&handler)))),
            ),
            (
                "route_service",
                Router::new().route_service(PAY, layer().layer(service(&handler))),
            ),
            (
                "fallback_service",
                Router::new().fallback_service(layer().layer(unprotected_app(&handler))),
            ),
            (
                "nest",
                Router::new().nest("/api", Router::new()).merge(
                    Router::new()
                        .route(PAY, any(charge))
                        .layer(layer())
                        .with_state(handler.clone()),
                ),
            ),
        ];
        for (what, app) in apps {
            assert_serves(what, &app, &handler).await;
        }
    });
}

/// Sends a payment to a service of any request body.
async fn pay<S, B>(service: &S, body: B) -> TestResponse
where
    S: Service<http::Request<B>, Response = Response> + Clone,
    S::Error: std::fmt::Debug,
{
    let (head, _) = payment().request().into_parts();
    let response = service
        .clone()
        .oneshot(http::Request::from_parts(head, body));
    TestResponse::read(response.await.unwrap()).await
}

#[test]
pub(super) fn a_plain_service_of_any_body() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let service = ServiceBuilder::new()
            .layer(idempotency())
            .service(service(&handler));
        pay(&service, Body::from("{}")).await.assert_charge(1);
        let bytes = Bytes::from_static(b"{}");
        pay(&service, Full::new(bytes.clone()))
            .await
            .assert_replay_of_charge(1);
        pay(&service, Full::new(bytes).boxed_unsync())
            .await
            .assert_replay_of_charge(1);
        pay(&service, "{}".to_owned())
            .await
            .assert_replay_of_charge(1);
        pay(&service, Empty::<Bytes>::new())
            .await
            .assert_problem(409, "mismatch");
    });
}

#[test]
pub(super) fn a_service_whose_responses_have_a_body_of_their_own() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let service = ServiceBuilder::new()
            .layer(idempotency())
            .service(service_fn({
                let handler = handler.clone();
                move |request: Request| {
                    let answer = handler.clone().call(request);
                    async {
                        let answer = answer.await.map(BodyExt::boxed_unsync);
                        Ok::<_, BoxError>(answer)
                    }
                }
            }));
        pay(&service, Body::from("{}")).await.assert_charge(1);
        pay(&service, Body::from("{}"))
            .await
            .assert_replay_of_charge(1);
    });
}

#[test]
pub(super) fn a_plain_hyper_server() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let service = ServiceBuilder::new()
            .layer(idempotency())
            .service(service(&handler));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ended = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        // When the client disconnects half-way over HTTP/1.1, then a retry over h2 gets the outcome.
        handler.close_gate();
        let mut conn = Conn::open(address).await;
        conn.send(&payment().wire()).await;
        handler.started(1).await;
        conn.reset();
        let mut conn = H2Conn::open(address).await;
        let retry = conn.send(&payment()).await;
        conn.flush().await;
        handler.open_gate();
        retry.answer().await.assert_replay_of_charge(1);
        let mismatch = conn.send(&payment().body("other")).await;
        mismatch.answer().await.assert_problem(409, "mismatch");
        let mut conn = Conn::open(address).await;
        conn.send(&TestRequest::post(PAY).wire()).await;
        conn.answer().await.assert_charge(2);
        serving.abort();
    });
}

#[test]
pub(super) fn an_engine_as_a_layer_is_the_engine_of_annotated_handlers() {
    with_paused_clock(async {
        // Given two engines on stores of their own, one given as a layer in each way.
        let routes = || Router::new().route(PAY, any(annotated));
        for n in 0..5 {
            let handler = CountingHandler::new();
            let store = MemoryStore::new();
            let engine = || {
                let builder = Idempotency::builder().store(store.clone());
                builder.build().unwrap()
            };
            let app = match n {
                0 => routes().layer(engine()),
                1 => routes().route_layer(engine()),
                2 => routes().layer(ServiceBuilder::new().layer(engine())),
                3 => Router::new().route(PAY, any(annotated).layer(engine())),
                _ => routes().layer(Extension(engine())),
            };
            let app = app.with_state(handler.clone());
            assert_serves("the engine as a layer", &app, &handler).await;
            // Then the records are in its store.
            let other = routes().layer(engine()).with_state(handler.clone());
            assert!(send(&other, &payment()).await.replayed(), "{n}");
        }
    });
}

#[test]
pub(super) fn an_engine_as_a_layer_protects_nothing_that_is_not_annotated() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = unprotected_app(&handler).layer(engine());
        send(&app, &payment()).await.assert_charge(1);
        send(&app, &payment()).await.assert_charge(2);
    });
}

#[test]
pub(super) fn a_layer_covers_the_methods_it_is_told() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let layer = IdempotencyLayer::new(engine()).methods([Method::PUT]);
        let app = unprotected_app(&handler).layer(layer);
        let put = TestRequest::new(Method::PUT, PAY).key("k");
        send(&app, &put).await.assert_charge(1);
        send(&app, &put).await.assert_replay_of_charge(1);
        send(&app, &payment()).await.assert_charge(2);
        send(&app, &payment()).await.assert_charge(3);
    });
}

#[test]
pub(super) fn handlers_inside_extract_their_bodies() {
    with_paused_clock(async {
        async fn echo(Json(value): Json<Value>) -> Json<Value> {
            Json(value)
        }
        let app: Router = Router::new().route(PAY, post(echo)).layer(idempotency());
        let request = payment().header("content-type", "application/json");
        for replayed in [false, true] {
            let answer = send(&app, &request).await;
            assert_eq!(
                (answer.json(), answer.replayed()),
                (serde_json::json!({ "amount": 100 }), replayed)
            );
        }
    });
}
