use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use axum::Json;

#[idempotent]
async fn handler(text: String, Json(n): Json<u32>) -> String {
    format!("{text} {n}")
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
