use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(ttl = "1h".repeat(2))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
