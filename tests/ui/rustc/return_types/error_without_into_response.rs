use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use axum::Json;

#[derive(Debug)]
struct AppError;

#[idempotent]
async fn handler() -> Result<Json<u32>, AppError> {
    Err(AppError)
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
