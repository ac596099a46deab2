use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use std::pin::Pin;

#[idempotent]
fn handler() -> Pin<Box<dyn Future<Output = String>>> {
    Box::pin(async { String::new() })
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
