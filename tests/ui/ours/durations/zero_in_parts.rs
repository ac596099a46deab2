use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(lease = "0m0s")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
