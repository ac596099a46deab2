use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use http::Method;

#[idempotent]
async fn handler(
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
    _: Method,
) {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
