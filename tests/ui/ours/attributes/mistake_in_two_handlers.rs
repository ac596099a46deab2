use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(tll = "1h")]
async fn handler() {}

#[idempotent(wait = 2)]
async fn other() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).route("/other", post(other));
}
