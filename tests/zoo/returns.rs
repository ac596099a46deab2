//! The return types of a handler.

use std::{future::Future, pin::Pin};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    http::{HeaderName, StatusCode, header},
    response::{AppendHeaders, Html, IntoResponse, NoContent, Redirect, Response},
    routing::post,
};
use futures_util::future::BoxFuture;
use idempotent_runtime::{Retention, idempotent};
use serde::Serialize;

use crate::support::{empty, exercise, send, serve};

#[derive(Serialize)]
struct Receipt {
    id: u32,
}

enum AppError {
    Refused,
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let Self::Refused = self;
        (StatusCode::UNPROCESSABLE_ENTITY, "refused").into_response()
    }
}

macro_rules! returns {
    ($($test:ident: $out:ty = $value:expr => $status:ident $body:expr;)*) => {$(
        #[tokio::test]
        async fn $test() {
            #[idempotent]
            async fn handler() -> $out {
                $value
            }
            let response = exercise(Router::new().route("/", post(handler)), empty("/")).await;
            assert_eq!((response.status, response.body.as_str()), (StatusCode::$status, $body));
        }
    )*};
}

returns! {
    some_response: impl IntoResponse = (StatusCode::CREATED, "made") => CREATED "made";
    a_response: Response = Response::new(Body::from("whole")) => OK "whole";
    json: Json<Receipt> = Json(Receipt { id: 1 }) => OK r#"{"id":1}"#;
    ok: Result<Json<Receipt>, AppError> = Ok(Json(Receipt { id: 1 })) => OK r#"{"id":1}"#;
    an_error: Result<Json<Receipt>, AppError> = Err(AppError::Refused) => UNPROCESSABLE_ENTITY "refused";
    an_error_of_axum: axum::response::Result<&'static str> = Err("bad".into()) => OK "bad";
    either: Result<impl IntoResponse, impl IntoResponse> = if true { Ok("yes") } else { Err(StatusCode::CONFLICT) } => OK "yes";
    status: StatusCode = StatusCode::ACCEPTED => ACCEPTED "";
    a_pair: (StatusCode, Json<Receipt>) = (StatusCode::CREATED, Json(Receipt { id: 2 })) => CREATED r#"{"id":2}"#;
    headers: (StatusCode, [(HeaderName, &'static str); 1], &'static str)
        = (StatusCode::CREATED, [(header::LOCATION, "/1")], "made") => CREATED "made";
    more_headers: (AppendHeaders<[(&'static str, &'static str); 2]>, String)
        = (AppendHeaders([("x-a", "1"), ("x-a", "2")]), "both".to_owned()) => OK "both";
    text: &'static str = "text" => OK "text";
    string: String = "string".to_owned() => OK "string";
    bytes: Bytes = Bytes::from_static(b"bytes") => OK "bytes";
    vec: Vec<u8> = b"vec".to_vec() => OK "vec";
    html: Html<&'static str> = Html("<p>") => OK "<p>";
    body: Body = Body::from("body") => OK "body";
    no_content: NoContent = NoContent => NO_CONTENT "";
    unit: () = () => OK "";
    redirect: Redirect = Redirect::to("/elsewhere") => SEE_OTHER "";
}

#[tokio::test]
async fn no_return_type() {
    #[idempotent]
    async fn handler() {}
    let response = exercise(Router::new().route("/", post(handler)), empty("/")).await;
    assert_eq!(
        (response.status, response.body.as_str()),
        (StatusCode::OK, "")
    );
}

/// Such a handler can only end by a panic, and the response to that is stored.
#[tokio::test]
async fn never() {
    #[idempotent]
    async fn handler() -> ! {
        panic!("on purpose")
    }
    let address = serve(Router::new().route("/", post(handler))).await;
    let mut request = empty("/");
    request
        .headers_mut()
        .insert("idempotency-key", "k".parse().expect("valid"));
    for replay in [false, true] {
        let response = send(address, request.clone()).await;
        assert_eq!(
            (response.status, response.is_replay()),
            (StatusCode::INTERNAL_SERVER_ERROR, replay)
        );
        assert!(
            response.body.contains("handler_panicked"),
            "{}",
            response.body
        );
    }
}

#[tokio::test]
async fn functions_that_return_futures() {
    #[allow(clippy::manual_async_fn, reason = "people do write them")]
    #[idempotent]
    fn opaque() -> impl Future<Output = &'static str> + Send {
        async { "opaque" }
    }
    #[allow(clippy::manual_async_fn, reason = "people do write them")]
    #[idempotent]
    fn opaque_async(text: String) -> impl Future<Output = impl IntoResponse> {
        async move { (StatusCode::CREATED, text) }
    }
    #[idempotent]
    fn pinned() -> Pin<Box<dyn Future<Output = &'static str> + Send>> {
        Box::pin(async { "pinned" })
    }
    #[idempotent]
    fn boxed() -> BoxFuture<'static, Result<&'static str, StatusCode>> {
        Box::pin(async { Ok("boxed") })
    }
    #[idempotent]
    fn ready() -> std::future::Ready<&'static str> {
        std::future::ready("ready")
    }
    type HandlerFuture = BoxFuture<'static, &'static str>;
    #[idempotent]
    fn alias() -> HandlerFuture {
        Box::pin(async { "alias" })
    }
    let router = || {
        let router = Router::new()
            .route("/opaque", post(opaque))
            .route("/pinned", post(pinned));
        let router = router
            .route("/boxed", post(boxed))
            .route("/ready", post(ready));
        router
            .route("/opaque_async", post(opaque_async))
            .route("/alias", post(alias))
    };
    for name in ["opaque", "pinned", "boxed", "ready", "alias"] {
        assert_eq!(
            exercise(router(), empty(&format!("/{name}"))).await.body,
            name
        );
    }
    assert_eq!(
        exercise(router(), empty("/opaque_async")).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_handler_releases_the_key_of_one_response() {
    #[idempotent]
    async fn handler() -> impl IntoResponse {
        (StatusCode::BAD_GATEWAY, Retention::Release, "later")
    }
    let address = serve(Router::new().route("/", post(handler))).await;
    let mut request = empty("/");
    request
        .headers_mut()
        .insert("idempotency-key", "k".parse().expect("valid"));
    for _ in 0..2 {
        let response = send(address, request.clone()).await;
        assert_eq!(
            (response.status, response.is_replay()),
            (StatusCode::BAD_GATEWAY, false)
        );
    }
}
