use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use http::StatusCode;

#[idempotent]
async fn handler() -> (StatusCode, u32) {
    (StatusCode::OK, 1)
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
