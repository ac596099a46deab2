use axum::{Router, debug_handler, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
#[debug_handler]
async fn handler(amount: u32) {
    let _ = amount;
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
