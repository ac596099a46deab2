use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use axum::Json;

#[idempotent]
async fn handler(Json(n): Json<u32>) -> String {
    n.to_string()
}

#[idempotent]
async fn other() -> String {
    handler(Json(1)).await
}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).route("/other", post(other));
}
