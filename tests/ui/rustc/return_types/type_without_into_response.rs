use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

struct Receipt;

#[idempotent]
async fn handler() -> Receipt {
    Receipt
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
