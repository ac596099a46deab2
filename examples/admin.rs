//! The admin page of a service: what is unknown, who resolved it, and a form that does.
//!
//! ```text
//! cargo run -p idempotent-examples --example admin
//! ```
//!
//! Then open <http://127.0.0.1:8001/admin/> as `ann`, with the password `demo`. The service begins with a few payments:
//! some are completed, one takes its time, and of some nobody knows whether they happened.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    http::{HeaderValue, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use idempotent_runtime::{
    Idempotency, Retention,
    admin::{self, Access},
    idempotent,
};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

/// Who is at work, as the authentication found out.
#[derive(Clone)]
struct Employee(&'static str);

/// `ann:demo`, as a browser sends it. A service has its own way to know its employees.
const ANN: &str = "Basic YW5uOmRlbW8=";

/// Asks for the password. The guard below only decides what somebody known may do.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(header::AUTHORIZATION);
    if sent.is_none_or(|sent| sent != ANN) {
        let challenge = HeaderValue::from_static("Basic realm=\"admin\"");
        return (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, challenge)],
        )
            .into_response();
    }
    request.extensions_mut().insert(Employee("ann"));
    next.run(request).await
}

fn guard(parts: &Parts) -> Access {
    match parts.extensions.get::<Employee>() {
        Some(Employee(name)) => Access::Write((*name).into()),
        None => Access::Deny,
    }
}

/// Pays, unless the provider is lost half-way.
#[idempotent(required)]
async fn pay(Path(what): Path<String>) -> Response {
    match what.as_str() {
        "lost" => {
            let lost = (StatusCode::BAD_GATEWAY, "the provider does not answer");
            (Retention::Unknown, lost).into_response()
        }
        "slow" => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            "paid at last".into_response()
        }
        what => (StatusCode::CREATED, format!("paid {what}")).into_response(),
    }
}

fn app(idempotency: &Idempotency) -> Router {
    let admin = admin::router(idempotency.clone(), guard).layer(middleware::from_fn(authenticate));
    Router::new()
        .route("/payments/{what}", post(pay))
        .layer(axum::Extension(idempotency.clone()))
        .nest_service("/admin", admin)
}

/// One payment, as a client sends it.
fn payment(what: &str, key: &str) -> Request {
    Request::post(format!("/payments/{what}"))
        .header("idempotency-key", key)
        .body(Body::empty())
        .expect("a valid request")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let idempotency = Idempotency::builder().admin_writes(true).build()?;
    let app = app(&idempotency);
    for (what, key) in [
        ("lost", "order-1"),
        ("lost", "order-2"),
        ("rent", "order-3"),
        ("bread", "order-4"),
    ] {
        app.clone().oneshot(payment(what, key)).await?;
    }
    tokio::spawn(app.clone().oneshot(payment("slow", "order-5")));

    let listener = TcpListener::bind("127.0.0.1:8001").await?;
    println!("http://127.0.0.1:8001/admin/ as ann, password demo");
    axum::serve(listener, app).await?;
    Ok(())
}
