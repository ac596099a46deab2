use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler() {}

#[idempotent]
async fn other() {
    handler().await;
}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).route("/other", post(other));
}
