use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(fingerprint(form, ignore_body))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
