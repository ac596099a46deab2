#![deny(warnings)]

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler() {
    "1".parse::<u32>();
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
