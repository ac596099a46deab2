//! Handlers in a crate without prelude, without unsafe code, with all warnings denied, and with the runtime renamed.

#![no_implicit_prelude]
#![deny(
    warnings,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    unused
)]
#![deny(clippy::all, clippy::pedantic, unused_qualifications)]
#![forbid(unsafe_code)]

use ::axum::{Json, Router, extract::State, http::Method, routing::post};
use ::rt::{Execution, idempotent};
use ::std::{option::Option, string::String};

#[idempotent(crate = ::rt)]
async fn none() {}

#[idempotent(
    crate = ::rt,
    name = "all",
    ttl = "1h",
    wait = true,
    wait_timeout = "5s",
    lease = "10s",
    max_lifetime = "1m",
    on_crash = find_out,
    required = false,
    header = "Idempotency-Key",
    strict = false,
    uuid = false,
    scope = nobody,
    fingerprint(headers("x-a"), json, ignore_query, ignore_content_type),
    cache = "no-server-errors",
    max_body = "64KiB",
    max_response = "64KiB",
    state = &'static str
)]
async fn all(
    State(name): State<&'static str>,
    method: Method,
    execution: Option<Execution>,
    Json(n): Json<u32>,
) -> String {
    ::std::format!("{name} {method} {n} {}", execution.is_some())
}

async fn find_out(_: ::rt::Crash) -> ::rt::Recovery {
    ::rt::Recovery::StillUnknown
}

fn nobody(parts: &::axum::http::request::Parts) -> Option<::rt::Scope> {
    parts.headers.get("x-nobody").map(::rt::Scope::new)
}

/// Its routes.
pub fn router() -> Router {
    Router::new()
        .route("/none", post(none))
        .route("/all", post(all))
        .with_state("austere")
}
