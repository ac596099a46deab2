//! Handlers in a crate of edition 2021 with every lint denied.

#![deny(
    warnings,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    unused
)]
#![deny(
    rust_2018_idioms,
    rust_2024_compatibility,
    unused_qualifications,
    single_use_lifetimes
)]
#![deny(clippy::all, clippy::pedantic, clippy::cargo)]
#![allow(
    clippy::cargo_common_metadata,
    clippy::multiple_crate_versions,
    reason = "about the manifest"
)]
#![forbid(unsafe_code)]

use axum::{
    extract::State,
    http::{HeaderMap, Method},
    response::IntoResponse,
    routing::post,
    Json, Router,
};
use idempotent_runtime::{idempotent, Crash, Execution, Recovery, Scope};
use std::borrow::Cow;

#[idempotent]
async fn none() {}

#[idempotent(ttl = "1h", on_crash = find_out, fingerprint(headers("x-a"), json), cache = "success")]
async fn all(
    State(name): State<&'static str>,
    method: Method,
    mut headers: HeaderMap,
    execution: Option<Execution>,
    Json(n): Json<u32>,
) -> impl IntoResponse {
    headers.clear();
    format!("{name} {method} {n} {}", execution.is_some())
}

async fn find_out(_: Crash) -> Recovery {
    Recovery::StillUnknown
}

/// Documented.
///
/// # Errors
///
/// None.
#[idempotent(inner = exposed_inner, state = &'static str)]
pub async fn exposed(State(name): State<&'static str>) -> Result<String, axum::http::StatusCode> {
    Ok(name.to_owned())
}

#[idempotent]
async fn generic<T>(Json(n): Json<u32>) -> String
where
    T: From<u32> + std::fmt::Display,
{
    T::from(n).to_string()
}

/// With a `crate` path, and with an `inner` function, which has no documentation.
#[idempotent(crate = idempotent_runtime, inner = by_path_inner, scope = nobody)]
pub async fn by_path<'a, T>(method: Method, Json(text): Json<Cow<'a, str>>) -> Cow<'a, str>
where
    T: From<u8> + std::fmt::Display + 'a,
{
    let more = T::from(1);
    format!("{text}{method}{more}").into()
}

fn nobody(parts: &axum::http::request::Parts) -> Option<Scope> {
    parts.headers.get("x-nobody").map(Scope::new)
}

/// Its routes.
pub fn router() -> Router {
    let router = Router::new()
        .route("/none", post(none))
        .route("/all", post(all));
    router
        .route("/generic", post(generic::<u64>))
        .route("/by-path", post(by_path::<u64>))
        .with_state("2021")
}
