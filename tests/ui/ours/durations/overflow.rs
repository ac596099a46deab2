use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(max_lifetime = "99999999999999999999d")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
