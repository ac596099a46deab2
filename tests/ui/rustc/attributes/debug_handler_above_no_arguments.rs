use axum::{Router, debug_handler, routing::post};
use idempotent_runtime::idempotent;

#[debug_handler]
#[idempotent]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
