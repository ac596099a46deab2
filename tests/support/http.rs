//! Requests and responses, in process or over a connection.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// A request that can be sent any number of times.
#[derive(Clone, Debug)]
pub(crate) struct TestRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A response that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl TestRequest {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// A POST to this path.
    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// A payment with this key.
    pub(crate) fn payment(key: &str) -> Self {
        Self::post(super::PAY).key(key).body(r#"{"amount":100}"#)
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// Adds a line of this header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).unwrap();
        self.headers
            .append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn request(&self) -> Request<Body> {
        self.request_with(Body::from(self.body.clone()))
    }

    /// The request with this body instead of its own.
    pub(crate) fn request_with(&self, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// The head of the request as HTTP/1.1 sends it, with this framing header.
    pub(crate) fn head(&self, framing: &str) -> Vec<u8> {
        let mut wire = format!(
            "{} {} HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n",
            self.method, self.path
        )
        .into_bytes();
        for (name, value) in &self.headers {
            wire.extend_from_slice(name.as_str().as_bytes());
            wire.extend_from_slice(b": ");
            wire.extend_from_slice(value.as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"\r\n");
        wire
    }

    /// The request as HTTP/1.1 sends it.
    pub(crate) fn wire(&self) -> Vec<u8> {
        let mut wire = self.head(&format!("content-length: {}", self.body.len()));
        wire.extend_from_slice(&self.body);
        wire
    }
}

impl TestResponse {
    /// Reads a response to its end.
    pub(crate) async fn read(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("the body arrives").to_bytes();
        Self {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    /// Whether the engine says that this is a replay.
    pub(crate) fn replayed(&self) -> bool {
        self.headers
            .get("idempotent-replay")
            .is_some_and(|value| value == "true")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The values of all lines of a header, in their order.
    pub(crate) fn lines(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.get_all(name);
        lines.iter().map(|line| line.to_str().unwrap()).collect()
    }

    /// The code of the problem in this response.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        assert_eq!(
            self.lines("content-type"),
            ["application/problem+json"],
            "{self:?}"
        );
        self.json()["code"].as_str().unwrap().to_owned()
    }

    /// Asserts that this is the engine's own answer with this status and code.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.code().as_str()),
            (status, code),
            "{self:?}"
        );
        assert!(!self.replayed() || code == "handler_panicked", "{self:?}");
    }

    /// Asserts that this is the response of the handler's n-th execution, and not a replay.
    #[track_caller]
    pub(crate) fn assert_charge(&self, n: usize) {
        assert_eq!(
            (self.status.as_u16(), self.text()),
            (201, format!("charge {n}").as_str()),
            "{self:?}"
        );
        assert!(!self.replayed(), "{self:?}");
    }

    /// Asserts that this is a replay of the handler's n-th execution.
    #[track_caller]
    pub(crate) fn assert_replay_of_charge(&self, n: usize) {
        assert_eq!(
            (self.status.as_u16(), self.text()),
            (201, format!("charge {n}").as_str()),
            "{self:?}"
        );
        assert!(self.replayed(), "{self:?}");
    }
}

/// Sends a request and reads the response.
pub(crate) async fn send(app: &Router, request: &TestRequest) -> TestResponse {
    let response = app.clone().oneshot(request.request()).await.unwrap();
    TestResponse::read(response).await
}

/// Sends a request in a task of its own. Aborting the task is a client that disconnects.
pub(crate) fn send_in_task(app: &Router, request: &TestRequest) -> JoinHandle<TestResponse> {
    let response = app.clone().oneshot(request.request());
    tokio::spawn(async move { TestResponse::read(response.await.unwrap()).await })
}

/// Polls a future once.
pub(crate) async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
