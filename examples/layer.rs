//! `IdempotencyLayer`: the same guarantees without the attribute, around a whole router.
//!
//! ```text
//! cargo run --example layer             sends itself requests and prints the answers
//! ```
//!
//! 1. One policy applies to all routes inside. The handlers are plain axum handlers.
//! 2. POST, PUT, PATCH and DELETE are covered by default; this example covers POST and PUT.
//! 3. Keys are unique per tenant: two tenants may use the same key. Scope by a header only if something in front of the
//!    service sets it, such as a gateway: a client must not be able to choose it.

use std::{error::Error, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{HeaderName, Method, Request},
    routing::post,
};
use idempotent_runtime::{
    FingerprintRule, Idempotency, IdempotencyLayer, Policy, ProblemCode, scope,
};
use tower::ServiceExt as _;

/// The policy of all routes inside the layer.
const POLICY: Policy = Policy::new()
    .ttl(Duration::from_secs(7 * 24 * 60 * 60))
    .required(true)
    // A booking in another currency is another booking; the same JSON in another order is not.
    .fingerprint(FingerprintRule::new().headers(&["x-currency"]).json());

fn app(idempotency: Idempotency) -> Router {
    let layer = IdempotencyLayer::new(idempotency)
        .policy(POLICY)
        .methods([Method::POST, Method::PUT]);
    Router::new()
        .route("/bookings/{room}", post(book).delete(cancel))
        // On the routes only: the router's fallback has no effect to protect.
        .route_layer(layer)
}

async fn book(Path(room): Path<String>) -> String {
    println!("    (booking {room})");
    format!("{room} is yours")
}

async fn cancel(Path(room): Path<String>) -> String {
    println!("    (cancelling {room})");
    format!("{room} is free")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let idempotency = Idempotency::builder()
        .scope(scope::header(HeaderName::from_static("x-tenant")))
        .build()?;
    let app = app(idempotency.clone());

    let dollars = [
        ("x-tenant", "red"),
        ("idempotency-key", "k"),
        ("x-currency", "USD"),
    ];
    let euros = [
        ("x-tenant", "red"),
        ("idempotency-key", "k"),
        ("x-currency", "EUR"),
    ];
    let other = [
        ("x-tenant", "blue"),
        ("idempotency-key", "k"),
        ("x-currency", "USD"),
    ];
    let beach = r#"{"nights": 2, "view": "beach"}"#;
    let reordered = r#"{"view": "beach", "nights": 2}"#;
    let sent = |method, headers, body| answer(&app, method, headers, body);

    println!(
        "a first request books; its retry is replayed, whatever the order of the JSON members"
    );
    expect("200", &sent(Method::POST, &dollars, beach).await?)?;
    expect(
        "200 replay",
        &sent(Method::POST, &dollars, reordered).await?,
    )?;

    println!("another currency is a mismatch, another tenant's key another key");
    expect("409 mismatch", &sent(Method::POST, &euros, beach).await?)?;
    expect("200", &sent(Method::POST, &other, beach).await?)?;

    println!("the policy requires a key");
    expect(
        "400 missing_key",
        &sent(Method::POST, &dollars[..1], beach).await?,
    )?;

    println!("a method that is not covered executes each time");
    expect("200", &sent(Method::DELETE, &dollars, "").await?)?;
    expect("200", &sent(Method::DELETE, &dollars, "").await?)?;

    // In a service: call this after the server has ended, so that detached executions can end too.
    let report = idempotency.shutdown(Duration::from_secs(30)).await;
    println!("bye: {} executions drained", report.drained);
    Ok(())
}

/// Sends a request and returns its answer in short form.
async fn answer(
    app: &Router,
    method: Method,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Result<String, Box<dyn Error>> {
    let mut request = Request::builder().method(method).uri("/bookings/room-7");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app.clone().oneshot(request.body(Body::from(body))?).await?;
    let mut short = response.status().as_str().to_owned();
    if response.headers().contains_key("idempotent-replay") {
        short += " replay";
    }
    // The engine's own answers carry their code as an extension, for example for a logging layer.
    if let Some(code) = response.extensions().get::<ProblemCode>() {
        short = format!("{short} {code}");
    }
    Ok(short)
}

/// Prints an answer, and fails if it is not the expected one.
fn expect(expected: &str, answer: &str) -> Result<(), String> {
    println!("    {answer}");
    if answer == expected {
        Ok(())
    } else {
        Err(format!("expected {expected}"))
    }
}
