use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(fingerprint(ignore_query("")))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
