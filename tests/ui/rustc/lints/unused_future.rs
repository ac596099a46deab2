#![deny(warnings)]

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler() {
    std::future::ready(1);
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
