#![deny(warnings)]

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(inner = never_used_inner)]
#[expect(dead_code)]
async fn never_used() {}

#[idempotent(inner = unused_inner)]
#[expect(unused_variables)]
async fn unused(text: String) {}

#[idempotent(inner = handler_inner)]
#[expect(unused_variables)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).route("/unused", post(unused));
}
