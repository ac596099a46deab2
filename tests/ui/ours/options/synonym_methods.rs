use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(methods("POST", "PUT"))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
