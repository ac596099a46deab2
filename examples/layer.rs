//! `IdempotencyLayer`: the same guarantees without the attribute, around a whole router.
//!
//! ```text
//! cargo run --example layer             sends itself requests and prints the answers
//! ```
//!
//! 1. One policy applies to all routes inside. The handlers are plain axum handlers.
//! 2. POST, PUT, PATCH and DELETE are covered by default; this example covers POST and PUT.
//! 3. Authentication is a layer *outside*: it sees every request, replays too, so that a revoked token gets its 401 and
//!    not a stored response. It inserts the tenant, by whom keys are unique: two tenants may use the same key. A header
//!    that names the tenant would not do, because a client can send any.

use std::{
    collections::HashSet,
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Method, Request, StatusCode},
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use idempotent_runtime::{
    Caller, FingerprintRule, Idempotency, IdempotencyLayer, Policy, ProblemCode, Scope, scope,
};
use tower::ServiceExt as _;

/// The policy of all routes inside the layer.
const POLICY: Policy = Policy::new()
    .ttl(Duration::from_secs(7 * 24 * 60 * 60))
    .required(true)
    // Should a route ever be outside of the authentication, its requests are refused.
    .require_caller(true)
    // A booking in another currency is another booking; the same JSON in another order is not.
    .fingerprint(FingerprintRule::new().headers(&["x-currency"]).json());

/// Who calls. The scope is the tenant, which stays the same when a token is renewed.
#[derive(Clone)]
struct Tenant(String);

impl Caller for Tenant {
    fn scope(&self) -> Scope {
        Scope::new(&self.0)
    }
}

/// The valid tokens, as `tenant-number`. A service asks its sessions instead.
type Tokens = Arc<Mutex<HashSet<&'static str>>>;

fn valid(tokens: &Tokens) -> MutexGuard<'_, HashSet<&'static str>> {
    tokens.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets in who has a valid token, and says whose it is.
async fn authenticate(
    State(tokens): State<Tokens>,
    mut request: Request<Body>,
    next: Next,
) -> Result<Response, StatusCode> {
    let token = request.headers().get("authorization");
    let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.filter(|token| valid(&tokens).contains(token));
    let (tenant, _) = token
        .and_then(|token| token.split_once('-'))
        .ok_or(StatusCode::UNAUTHORIZED)?;
    let tenant = Tenant(tenant.to_owned());
    request.extensions_mut().insert(tenant);
    Ok(next.run(request).await)
}

fn app(idempotency: Idempotency, tokens: Tokens) -> Router {
    let layer = IdempotencyLayer::new(idempotency)
        .policy(POLICY)
        .methods([Method::POST, Method::PUT]);
    Router::new()
        .route("/bookings/{room}", post(book).delete(cancel))
        // On the routes only: the router's fallback has no effect to protect.
        .route_layer(layer)
        // Outside: a later layer is further out.
        .route_layer(middleware::from_fn_with_state(tokens, authenticate))
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
        .scope(scope::extension::<Tenant>())
        .build()?;
    let tokens = Tokens::new(Mutex::new(HashSet::from(["red-1", "red-2", "blue-1"])));
    let app = app(idempotency.clone(), Tokens::clone(&tokens));

    let dollars = [
        ("authorization", "Bearer red-1"),
        ("idempotency-key", "k"),
        ("x-currency", "USD"),
    ];
    let euros = [
        ("authorization", "Bearer red-1"),
        ("idempotency-key", "k"),
        ("x-currency", "EUR"),
    ];
    let other = [
        ("authorization", "Bearer blue-1"),
        ("idempotency-key", "k"),
        ("x-currency", "USD"),
    ];
    let renewed = [
        ("authorization", "Bearer red-2"),
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

    println!("a renewed token is the same tenant's; a revoked one gets no stored response");
    expect("200 replay", &sent(Method::POST, &renewed, beach).await?)?;
    valid(&tokens).remove("red-1");
    expect("401", &sent(Method::POST, &dollars, beach).await?)?;
    expect("401", &sent(Method::POST, &dollars[1..], beach).await?)?;

    println!("the policy requires a key");
    expect(
        "400 missing_key",
        &sent(Method::POST, &renewed[..1], beach).await?,
    )?;

    println!("a method that is not covered executes each time");
    expect("200", &sent(Method::DELETE, &renewed, "").await?)?;
    expect("200", &sent(Method::DELETE, &renewed, "").await?)?;

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
    let mut request = Request::builder()
        .method(method)
        .uri("/bookings/room-7")
        .header("content-type", "application/json");
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
