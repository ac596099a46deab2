use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(expires = "24h")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
