use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(wait = false, wait_timeout = "5s")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
