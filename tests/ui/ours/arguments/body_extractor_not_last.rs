use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler(axum::Json(n): axum::Json<u32>, method: http::Method) -> String {
    format!("{method} {n}")
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
