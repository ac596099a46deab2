use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async extern "C" fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
