use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(ttl = "1h", keep_headers("etag", "Set-Cookie"))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
