use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
#[idempotent(ttl = "1h")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
