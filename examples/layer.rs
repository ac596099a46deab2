//! `IdempotencyLayer`: the same guarantees without the attribute, around a whole router.
//!
//! ```text
//! cargo run --example layer             sends itself some requests and prints the answers
//! ```
//!
//! 1. One policy for all routes inside. The handlers know nothing of it.
//! 2. POST, PUT, PATCH and DELETE are covered; here the list is made shorter.
//! 3. Keys are unique per tenant: two tenants may use the same key without meeting each other. Scope by a header
//!    only where something in front of the service vouches for it, such as a gateway that sets it.

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

/// What the routes inside the layer have in common.
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
        // On the routes: what the router's fallback answers is nobody's effect.
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

    println!("a first request books; its retry is replayed, whatever the order of its members");
    expect("200", &sent(Method::POST, &dollars, beach).await?)?;
    expect(
        "200 replay",
        &sent(Method::POST, &dollars, reordered).await?,
    )?;

    println!("another currency is another booking, another tenant's key another key");
    expect("409 mismatch", &sent(Method::POST, &euros, beach).await?)?;
    expect("200", &sent(Method::POST, &other, beach).await?)?;

    println!("the policy requires a key");
    expect(
        "400 missing_key",
        &sent(Method::POST, &dollars[..1], beach).await?,
    )?;

    println!("a method that is not covered passes by");
    expect("200", &sent(Method::DELETE, &dollars, "").await?)?;
    expect("200", &sent(Method::DELETE, &dollars, "").await?)?;

    // Where a server runs: after it has ended, so that executions whose client has gone can end too.
    let report = idempotency.shutdown(Duration::from_secs(30)).await;
    println!("bye: {} executions drained", report.drained);
    Ok(())
}

/// Sends a request; its answer in short.
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
    // Answers of the engine itself carry their code, for layers such as one that logs.
    if let Some(code) = response.extensions().get::<ProblemCode>() {
        short = format!("{short} {code}");
    }
    Ok(short)
}

/// Prints an answer, unless it is not the one of the story.
fn expect(expected: &str, answer: &str) -> Result<(), String> {
    println!("    {answer}");
    if answer == expected {
        Ok(())
    } else {
        Err(format!("expected {expected}"))
    }
}
