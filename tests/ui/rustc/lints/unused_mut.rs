#![deny(warnings)]

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler(mut text: String) -> String {
    text
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
