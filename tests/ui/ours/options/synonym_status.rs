use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(status(200, 201))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
