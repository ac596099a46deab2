// By name: trybuild allows it.
#![deny(dead_code)]

use axum::{Json, http::Method};
use idempotent_runtime::idempotent;

#[idempotent(ttl = "1h")]
async fn handler(_: Method, Json(n): Json<u32>) -> String {
    n.to_string()
}

fn main() {}
