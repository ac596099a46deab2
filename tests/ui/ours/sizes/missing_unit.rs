use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(max_body = "1024")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
