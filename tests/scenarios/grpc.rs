//! gRPC calls pass the layer as if it were absent (DESIGN.md, section 8).

use axum::{Router, body::Body, extract::Request, response::Response, routing::post};
use bytes::Bytes;
use h2::client::handshake;
use http::{HeaderMap, HeaderValue, StatusCode, request::Parts};
use http_body_util::BodyExt;
use idempotent_runtime::{Idempotency, IdempotencyLayer, Policy, Scope};
use tokio::net::TcpStream;

use crate::support::{
    CountingHandler, FaultyStore, Log, Operation, Server, TestRequest, in_real_time, send,
    with_paused_clock,
};

const CHAT: &str = "/pay.Payments/Chat";

/// A service that answers each message of the client with the same one, at once, and whose status is in trailers.
async fn chat(request: Request) -> Response {
    let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(0))]);
    let answers = request.into_body();
    let answers = answers.with_trailers(async move { Some(Ok(status)) });
    let mut response = Response::new(Body::new(answers));
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", content_type);
    response
}

/// The service and an HTTP route, behind one layer.
fn app(engine: &Idempotency, handler: &CountingHandler) -> Router {
    let counted = handler.clone();
    let pay = async move |request: Request| counted.clone().call(request).await;
    Router::new()
        .route(CHAT, post(chat))
        .route("/pay", post(pay))
        .route_layer(IdempotencyLayer::new(engine.clone()))
}

fn engine(store: &FaultyStore) -> Idempotency {
    Idempotency::builder().store(store.clone()).build().unwrap()
}

fn call() -> TestRequest {
    let call = TestRequest::post(CHAT).header("te", "trailers").key("k");
    call.header("content-type", "application/grpc+proto")
}

#[test]
fn a_bidirectional_call_with_a_key_is_answered_while_it_is_sent_and_leaves_no_record() {
    in_real_time(async {
        let store = FaultyStore::new();
        let handler = CountingHandler::new();
        let server = Server::start(app(&engine(&store), &handler)).await;
        // With the same key again it is another call.
        for _ in 0..2 {
            let stream = TcpStream::connect(server.address).await.unwrap();
            let (mut client, connection) = handshake(stream).await.unwrap();
            let driver = tokio::spawn(connection);
            let mut head = call().request().map(|_| ());
            *head.uri_mut() = format!("http://localhost{CHAT}").parse().unwrap();
            let (response, mut messages) = client.send_request(head, false).unwrap();

            // Given a client that waits for each answer before it sends the next message.
            let message = Bytes::from_static(b"one");
            messages.send_data(message, false).unwrap();
            let mut answers = response.await.unwrap().into_body();
            assert_eq!(answers.data().await.unwrap().unwrap(), "one");
            let message = Bytes::from_static(b"two");
            messages.send_data(message, true).unwrap();
            assert_eq!(answers.data().await.unwrap().unwrap(), "two");
            assert!(answers.data().await.is_none());

            // Then it gets the status too, and the key is untouched.
            let status = answers.trailers().await.unwrap().expect("a status");
            assert_eq!(status["grpc-status"], "0");
            driver.abort();
        }
        assert_eq!(store.calls(Operation::Acquire), 0);
    });
}

#[test]
fn the_log_says_once_that_such_calls_are_not_protected() {
    with_paused_clock(async {
        let (log, _collected) = Log::collect();
        let handler = CountingHandler::new();
        let app = app(&engine(&FaultyStore::new()), &handler);
        for _ in 0..3 {
            assert_eq!(send(&app, &call()).await.status, StatusCode::OK);
        }
        let warnings = log.text().matches("a gRPC call").count();
        assert_eq!(warnings, 1, "{}", log.text());

        // What is not gRPC is protected beside it.
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_charge(1);
        let replay = send(&app, &TestRequest::payment("k")).await;
        replay.assert_replay_of_charge(1);
    });
}

#[test]
fn a_call_without_a_key_passes_silently_or_where_a_key_is_required_with_a_warning() {
    with_paused_clock(async {
        for (required, warnings) in [(false, 0), (true, 1)] {
            let (log, _collected) = Log::collect();
            let policy = Policy::new().required(required);
            let engine = Idempotency::builder().policy(policy).build().unwrap();
            let app = app(&engine, &CountingHandler::new());
            let mut call = call();
            call.headers.remove("idempotency-key");
            assert_eq!(send(&app, &call).await.status, StatusCode::OK);
            assert_eq!(log.text().matches("a gRPC call").count(), warnings);
        }
    });
}

/// Otherwise a media type would be a way around the authentication.
#[test]
fn a_caller_is_asked_of_grpc_calls_too() {
    async fn nobody(_: Parts) -> Result<(Parts, Scope), Response> {
        let mut refused = Response::default();
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        Err(refused)
    }

    with_paused_clock(async {
        let of_engine = Idempotency::builder().caller(nobody).build().unwrap();
        let none = Idempotency::builder().build().unwrap();
        for layer in [
            IdempotencyLayer::new(of_engine),
            IdempotencyLayer::new(none).caller(nobody),
        ] {
            let app = Router::new().route(CHAT, post(chat)).route_layer(layer);
            assert_eq!(send(&app, &call()).await.status, StatusCode::UNAUTHORIZED);
        }
    });
}
