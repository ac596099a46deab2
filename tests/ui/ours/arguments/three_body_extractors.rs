use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler(a: String, b: axum::body::Bytes, c: axum::extract::Request) {
    let _ = (a, b, c);
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
