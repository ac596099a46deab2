use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
fn handler() -> &'static str {
    "no future"
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
