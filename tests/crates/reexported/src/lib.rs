//! Handlers in a crate that uses the runtime through another crate's re-export only.

#![deny(warnings)]

use axum::{Json, Router, routing::post};
use idempotent_tests_facade::idempotency::{Execution, idempotent};

#[idempotent(
    crate = idempotent_tests_facade::idempotency,
    ttl = "1h",
    on_crash = "retry",
    fingerprint(json),
    cache = "success",
    max_body = "64KiB"
)]
async fn handler(execution: Option<Execution>, Json(n): Json<u32>) -> String {
    format!("{n} {}", execution.is_some())
}

/// Its one route.
pub fn router() -> Router {
    Router::new().route("/", post(handler))
}
