use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(on_crash = |crash| None)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
