use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(lease = "20ms")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
