use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(release(404, 503, 404))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
