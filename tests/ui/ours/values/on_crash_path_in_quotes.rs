use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(on_crash = "find_out")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
