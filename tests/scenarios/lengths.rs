//! The `Content-Length` of responses without a body (DESIGN.md, section 9, I14): it is about another response, so that
//! nobody can work it out again.

use axum::{Extension, Router, body::Body, extract::State, response::Response, routing::any};
use http::{Method, StatusCode};
use idempotent_runtime::{Idempotency, IdempotencyLayer, idempotent};

use crate::support::{
    Adapter, Conn, CountingHandler, PAY, Server, TestRequest, in_real_time, send,
};

#[idempotent]
async fn pay(State(handler): State<CountingHandler>, request: axum::extract::Request) -> Response {
    handler.call(request).await
}

async fn plain(
    State(handler): State<CountingHandler>,
    request: axum::extract::Request,
) -> Response {
    handler.call(request).await
}

fn app(adapter: Adapter, handler: &CountingHandler) -> Router {
    let engine = Idempotency::builder().build().unwrap();
    let app = match adapter {
        Adapter::Attribute => Router::new().route(PAY, any(pay)).layer(Extension(engine)),
        Adapter::Layer => {
            let layer = IdempotencyLayer::new(engine);
            let layer = layer.methods([Method::HEAD, Method::GET, Method::POST]);
            Router::new().route(PAY, any(plain)).route_layer(layer)
        }
    };
    app.with_state(handler.clone())
}

/// A handler that says this length and sends this body.
fn saying(status: u16, length: Option<&'static str>, body: &'static str) -> CountingHandler {
    CountingHandler::responding(move |_| {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(length) = length {
            let value = http::HeaderValue::from_static(length);
            response.headers_mut().insert("content-length", value);
        }
        response
    })
}

#[test]
fn the_length_in_an_answer_to_head_is_the_same_in_its_replay() {
    for adapter in [Adapter::Attribute, Adapter::Layer] {
        in_real_time(async {
            for (length, body) in [
                (Some("1234"), ""),
                (Some("1234"), "abc"),
                (None, "abc"),
                (None, ""),
                (Some("0"), ""),
            ] {
                let handler = saying(200, length, body);
                let server = Server::start(app(adapter, &handler)).await;
                let request = TestRequest::new(Method::HEAD, PAY).key("k");
                let mut answers = Vec::new();
                for _ in 0..2 {
                    let mut conn = Conn::open(server.address).await;
                    conn.send(&request.wire()).await;
                    answers.push(conn.try_head().await.unwrap());
                }
                let lengths = answers
                    .iter()
                    .map(|(_, headers)| headers.get("content-length"));
                let lengths: Vec<_> = lengths.collect();
                assert_eq!(lengths[0], lengths[1], "{adapter:?} {length:?} {body:?}");
                if let Some(length) = length {
                    assert_eq!(lengths[0].unwrap(), length);
                }
                assert_eq!(handler.effects(), 1);
            }
        });
    }
}

#[test]
fn the_length_of_a_response_without_a_body_is_the_same_in_its_replay() {
    for adapter in [Adapter::Attribute, Adapter::Layer] {
        in_real_time(async {
            for (method, status) in [(Method::GET, 304), (Method::POST, 304), (Method::POST, 204)] {
                let handler = saying(status, Some("1234"), "");
                let app = app(adapter, &handler);
                let request = TestRequest::new(method, PAY).key("k");
                let first = send(&app, &request).await;
                let replay = send(&app, &request).await;
                assert!(replay.replayed());
                assert_eq!(
                    first.lines("content-length"),
                    replay.lines("content-length")
                );
                assert_eq!(handler.effects(), 1);
            }
        });
    }
}

#[test]
fn the_length_of_a_response_with_a_body_is_that_of_the_replayed_body() {
    in_real_time(async {
        let handler = saying(201, Some("8"), "charge 1");
        let app = app(Adapter::Attribute, &handler);
        let request = TestRequest::payment("k");
        for _ in 0..2 {
            let answer = send(&app, &request).await;
            assert_eq!(answer.lines("content-length"), ["8"]);
            assert_eq!(answer.text(), "charge 1");
        }
    });
}
