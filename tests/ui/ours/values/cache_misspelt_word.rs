use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(cache = "no_server_errors")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
