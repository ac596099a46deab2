use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(drop_headers("x-served-by", "X-Served-By"))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
