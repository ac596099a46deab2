use axum::{Router, http::request::Parts, routing::post};
use idempotent_runtime::idempotent;

fn is_payment(_: &Parts) -> Option<bool> {
    None
}

#[idempotent(when = is_payment)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
