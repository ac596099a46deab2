//! The routes, which are one handler with and without the attribute, and the requests for each path through the engine.

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::Request,
    http::{StatusCode, header::CONTENT_TYPE},
    response::Response,
    routing::post,
};
use http_body_util::BodyExt;
use idempotent_runtime::{Idempotency, MemoryStore, idempotent};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower::ServiceExt;

/// The request: at least 24 bytes of JSON, padded to any size.
#[derive(Debug, Deserialize, Serialize)]
pub struct Payment {
    amount: u64,
    note: String,
}

/// The response, about as large as the request.
#[derive(Debug, Deserialize, Serialize)]
pub struct Receipt {
    status: &'static str,
    amount: u64,
    note: String,
}

/// A minimal real handler: it parses JSON and responds with JSON.
pub async fn bare(Json(payment): Json<Payment>) -> (StatusCode, Json<Receipt>) {
    receipt(payment)
}

/// The same handler with the attribute.
#[idempotent(ttl = "24h", wait = true)]
async fn create_payment(Json(payment): Json<Payment>) -> (StatusCode, Json<Receipt>) {
    receipt(payment)
}

/// The same with records that expire during the benchmark, as they do in a service that runs for days.
#[idempotent(ttl = "5s", wait = true)]
async fn create_short_lived(Json(payment): Json<Payment>) -> (StatusCode, Json<Receipt>) {
    receipt(payment)
}

/// A handler that yields once before it responds.
async fn bare_yielding(Json(payment): Json<Payment>) -> (StatusCode, Json<Receipt>) {
    tokio::task::yield_now().await;
    receipt(payment)
}

/// The same with the attribute, so that a duplicate finds it in flight.
#[idempotent(ttl = "24h", wait = true)]
async fn create_yielding(Json(payment): Json<Payment>) -> (StatusCode, Json<Receipt>) {
    tokio::task::yield_now().await;
    receipt(payment)
}

fn receipt(Payment { amount, note }: Payment) -> (StatusCode, Json<Receipt>) {
    let receipt = Receipt {
        status: "success",
        amount,
        note,
    };
    (StatusCode::CREATED, Json(receipt))
}

/// The handler without the attribute.
pub const BARE: &str = "/bare";
/// The handler without the attribute, behind the layer that the annotated routes are behind.
pub const BARE_LAYERED: &str = "/bare-layered";
/// The handler with it.
pub const PAYMENTS: &str = "/payments";
/// The handler with it, and records that live for five seconds.
pub const SHORT_LIVED: &str = "/short-lived";
/// The handler without the attribute that yields once.
pub const BARE_YIELDING: &str = "/bare-yielding";
/// The handler with it that yields once.
pub const YIELDING: &str = "/yielding";

/// All routes on a new engine without bounds on its store.
///
/// The bare route is not behind the layer that gives the others the engine, which an application without the attribute
/// would not have. The cost of that layer, which is axum's own, shows in the bare route behind it.
pub fn router() -> Router {
    router_on(engine())
}

/// All routes on this engine.
pub fn router_on(engine: Idempotency) -> Router {
    let plain = Router::new()
        .route(BARE, post(bare))
        .route(BARE_YIELDING, post(bare_yielding));
    Router::new()
        .route(PAYMENTS, post(create_payment))
        .route(SHORT_LIVED, post(create_short_lived))
        .route(YIELDING, post(create_yielding))
        .route(BARE_LAYERED, post(bare))
        .layer(Extension(engine))
        .merge(plain)
}

/// Prints a free port of 127.0.0.1 and serves the router there.
///
/// # Errors
///
/// If the port cannot be bound.
pub async fn serve(router: Router) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, router).await
}

/// An engine on a memory store without bounds.
///
/// # Panics
///
/// Never: no default is refused.
#[must_use]
pub fn engine() -> Idempotency {
    let store = MemoryStore::builder()
        .max_records(usize::MAX)
        .max_bytes(usize::MAX)
        .build();
    let engine = Idempotency::builder().store(store).build();
    engine.expect("the defaults are valid")
}

/// A JSON body of exactly this many bytes.
///
/// # Panics
///
/// If it is less than the 24 bytes of an empty payment.
#[must_use]
pub fn body(size: usize) -> Bytes {
    let (begin, end) = (r#"{"amount":100,"note":""#, r#""}"#);
    let padding = size
        .checked_sub(begin.len() + end.len())
        .expect("a payment has 24 bytes or more");
    [begin, &"x".repeat(padding), end].concat().into()
}

/// A request for a payment.
///
/// # Panics
///
/// If the key is not a valid header value.
#[must_use]
pub fn request(path: &str, key: Option<&str>, body: &Bytes) -> Request {
    let mut request = Request::post(path).header(CONTENT_TYPE, "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let body = Body::from(body.clone());
    request.body(body).expect("the key is a header value")
}

/// A key with the length of a UUID, unique for its series and number.
#[must_use]
pub fn key(series: &str, number: usize) -> String {
    format!("{series:0<16}{number:020}")
}

/// Sends a request and reads the response to its end.
///
/// # Panics
///
/// If the body cannot be read; those of these routes can.
pub async fn call(router: &Router, request: Request) -> (StatusCode, Bytes) {
    let Ok(response): Result<Response, _> = router.clone().oneshot(request).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("the body can be read");
    (head.status, body.to_bytes())
}
