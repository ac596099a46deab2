// By name: trybuild allows it.
#![deny(dead_code)]

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler() {
    fn helper() {}
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
