use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(fingerprint(json = false, ignore("/a")))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
