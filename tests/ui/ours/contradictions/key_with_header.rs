use axum::{Router, http::request::Parts, routing::post};
use idempotent_runtime::idempotent;

fn event_id(_: &Parts) -> Option<String> {
    None
}

#[idempotent(key = event_id, header = "X-Event-Id")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
