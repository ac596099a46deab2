use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(ttl = "24hours")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
