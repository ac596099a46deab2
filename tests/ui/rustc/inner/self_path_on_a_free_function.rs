use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(inner = Self::plain)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
