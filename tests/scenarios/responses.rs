//! Responses that are large, of unknown size, endless or broken (DESIGN.md, section 4; invariants I4, I15).

mod failures;
mod sizes;
mod streams;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use idempotent_runtime::{Idempotency, Policy};
use tower::ServiceExt;

use crate::support::{CountingHandler, Frames, TestRequest, frames};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn engine(policy: Policy) -> Idempotency {
    Idempotency::builder().policy(policy).build().unwrap()
}

/// A handler whose responses are streams that the scenario feeds.
fn streaming_handler() -> (CountingHandler, std::sync::mpsc::Receiver<Frames>) {
    let (sender, feeds) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let handler = CountingHandler::responding(move |_| {
        let (feed, body) = frames();
        sender.lock().unwrap().send(feed).unwrap();
        (StatusCode::CREATED, [("x-stream", "1")], body).into_response()
    });
    (handler, feeds)
}

#[expect(clippy::unnecessary_wraps, reason = "what a body yields")]
fn data(text: &'static str) -> std::io::Result<Frame<Bytes>> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Sends a request and reads the head of its response only.
async fn open(app: &axum::Router, request: &TestRequest) -> Response {
    app.clone().oneshot(request.request()).await.unwrap()
}
