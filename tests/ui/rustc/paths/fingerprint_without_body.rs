use axum::{Router, http::request::Parts, routing::post};
use idempotent_runtime::idempotent;

fn asked(_: &Parts) -> String {
    String::new()
}

#[idempotent(fingerprint = asked)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
