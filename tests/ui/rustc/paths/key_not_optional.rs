use axum::{Router, http::request::Parts, routing::post};
use idempotent_runtime::idempotent;

fn event_id(parts: &Parts) -> &str {
    parts.uri.path()
}

#[idempotent(key = event_id)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
