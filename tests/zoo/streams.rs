//! Responses in several pieces: events, streams, files, upgrades.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{WebSocketUpgrade, ws::Message},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response, Sse, sse::Event},
    routing::{any, post},
};
use futures_util::{SinkExt, Stream, StreamExt, stream};
use idempotent_runtime::idempotent;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};
use tokio_util::io::ReaderStream;

use crate::support::{empty, exercise, serve};

#[tokio::test]
async fn server_sent_events() {
    #[idempotent]
    async fn handler() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
        Sse::new(stream::iter([1, 2]).map(|n| Ok(Event::default().data(n.to_string()))))
    }
    let response = exercise(Router::new().route("/", post(handler)), empty("/")).await;
    assert_eq!(response.body, "data: 1\n\ndata: 2\n\n");
}

#[tokio::test]
async fn a_stream_of_unknown_length() {
    #[idempotent]
    async fn handler() -> Body {
        let parts = stream::iter(["a", "b", "c"]).then(|part| async move {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Bytes::from(part))
        });
        Body::from_stream(parts)
    }
    let response = exercise(Router::new().route("/", post(handler)), empty("/")).await;
    assert_eq!(response.body, "abc");
}

#[tokio::test]
async fn a_file() {
    #[idempotent]
    async fn handler() -> Result<(HeaderMap, Body), StatusCode> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/streams.rs");
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|_| StatusCode::NOT_FOUND)?;
        let headers = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("text/plain"),
        )]);
        Ok((headers, Body::from_stream(ReaderStream::new(file))))
    }
    let response = exercise(Router::new().route("/", post(handler)), empty("/")).await;
    assert_eq!(response.body, include_str!("streams.rs"));
}

/// A switch of protocols passes through and is never stored, with a key and without one.
#[tokio::test]
async fn a_web_socket() {
    #[idempotent]
    async fn handler(upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Text(text) = message
                    && socket
                        .send(Message::Text(format!("{text}!").into()))
                        .await
                        .is_err()
                {
                    return;
                }
            }
        })
    }
    let address = serve(Router::new().route("/", any(handler))).await;
    for key in [None, Some("k"), Some("k")] {
        let mut request = format!("ws://{address}/")
            .into_client_request()
            .expect("valid");
        if let Some(key) = key {
            request
                .headers_mut()
                .insert("idempotency-key", key.parse().expect("valid"));
        }
        let stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("the server listens");
        let (mut socket, response) = tokio_tungstenite::client_async(request, stream)
            .await
            .expect("an upgrade");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert!(!response.headers().contains_key("idempotent-replay"));
        socket
            .send(tungstenite::Message::text("hello"))
            .await
            .expect("sent");
        let echo = tokio::time::timeout(Duration::from_secs(5), socket.next())
            .await
            .expect("in time");
        assert_eq!(
            echo.expect("open")
                .expect("a message")
                .into_text()
                .expect("text")
                .as_str(),
            "hello!"
        );
    }
}

#[tokio::test]
async fn a_body_of_another_type() {
    #[idempotent]
    async fn handler() -> impl IntoResponse {
        Response::new(Body::new(http_body_util::Full::new(Bytes::from("full"))))
    }
    let response = exercise(Router::new().route("/", post(handler)), empty("/")).await;
    assert_eq!(response.body, "full");
}
