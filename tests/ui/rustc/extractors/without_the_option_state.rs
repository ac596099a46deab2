use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler(amount: u32) {
    let _ = amount;
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
