use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(when = is_payment)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
