use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(max_body = "99999999999999999999GiB")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
