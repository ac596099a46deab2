#![deny(warnings)]

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
#[expect(unused_variables)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
