//! A server for one router, a client for one request, and the check that every handler goes through.

use std::net::SocketAddr;

use axum::{Extension, Router, body::Body};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use idempotent_runtime::Idempotency;
use tokio::net::{TcpListener, TcpStream};

/// A response that was read to its end.
#[derive(Debug)]
pub(crate) struct TestResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl TestResponse {
    pub(crate) fn is_replay(&self) -> bool {
        self.headers.contains_key("idempotent-replay")
    }
}

/// Serves a router on a port of its own, with an engine of its own, until the test ends.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let engine = Idempotency::builder()
        .build()
        .expect("the defaults are valid");
    let router = router.layer(Extension(engine));
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Sends one request over a connection of its own.
pub(crate) async fn send(address: SocketAddr, request: Request<String>) -> TestResponse {
    let stream = TcpStream::connect(address)
        .await
        .expect("the server listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    let response = sender
        .send_request(request.map(Body::from))
        .await
        .expect("a response");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let body = String::from_utf8(body.to_vec()).expect("text");
    TestResponse {
        status: head.status,
        headers: head.headers,
        body,
    }
}

/// A `POST` with a JSON body.
pub(crate) fn json(path: &str, body: &str) -> Request<String> {
    post(path, "application/json", body)
}

/// A `POST` without a body.
pub(crate) fn empty(path: &str) -> Request<String> {
    Request::post(path).body(String::new()).expect("valid")
}

pub(crate) fn post(path: &str, content_type: &str, body: &str) -> Request<String> {
    Request::post(path)
        .header("content-type", content_type)
        .body(body.to_owned())
        .expect("valid")
}

/// Sends a request twice without a key, which runs the handler each time, and then twice with one: the second response
/// must replay the first, which is returned.
pub(crate) async fn exercise(router: Router, request: Request<String>) -> TestResponse {
    let address = serve(router).await;
    for _ in 0..2 {
        let plain = send(address, request.clone()).await;
        assert!(!plain.is_replay(), "{plain:?}");
    }
    let mut request = request;
    request
        .headers_mut()
        .insert("idempotency-key", "k-1".parse().expect("valid"));
    let first = send(address, request.clone()).await;
    assert!(!first.is_replay(), "{first:?}");
    let second = send(address, request).await;
    assert!(second.is_replay(), "{second:?}");
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    first
}
