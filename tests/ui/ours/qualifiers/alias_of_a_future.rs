use std::pin::Pin;

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

type Reply = Pin<Box<dyn Future<Output = String> + Send>>;

#[idempotent]
fn handler() -> Reply {
    Box::pin(async { String::new() })
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
