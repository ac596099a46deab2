use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(lease = "20m", max_lifetime = "15m")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
