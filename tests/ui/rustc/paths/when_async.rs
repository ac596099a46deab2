use axum::{Router, http::request::Parts, routing::post};
use idempotent_runtime::idempotent;

async fn is_payment(_: &Parts) -> bool {
    true
}

#[idempotent(when = is_payment)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
