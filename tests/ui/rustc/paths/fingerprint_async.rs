use axum::{Router, http::request::Parts, routing::post};
use idempotent_runtime::idempotent;

async fn asked(_: &Parts, _: &[u8]) -> String {
    String::new()
}

#[idempotent(fingerprint = asked)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
