#![deny(warnings)]

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(inner = plain)]
async fn handler(text: String) {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
