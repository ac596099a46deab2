//! Handlers in a crate that uses the runtime through another crate's re-export only.

#![deny(warnings)]

use axum::{Json, Router, extract::State, routing::post};
use idempotent_tests_facade::idempotency::{Crash, Execution, Recovery, idempotent};

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

#[idempotent(crate = idempotent_tests_facade::idempotency, state = u32, on_crash = find_out)]
async fn recovers(State(n): State<u32>) -> String {
    n.to_string()
}

async fn find_out(_: Crash, State(_): State<u32>) -> Recovery {
    Recovery::StillUnknown
}

/// Its routes.
pub fn router() -> Router {
    Router::new()
        .route("/", post(handler))
        .route("/recovers", post(recovers))
        .with_state(3)
}
