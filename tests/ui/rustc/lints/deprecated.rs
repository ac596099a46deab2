#![deny(warnings)]

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
#[deprecated]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
