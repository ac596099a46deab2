use axum::{Router, http::request::Parts, routing::post};
use idempotent_runtime::idempotent;

fn asked(_: &Parts, _: &[u8]) -> u64 {
    0
}

#[idempotent(fingerprint = asked)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
