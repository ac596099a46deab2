use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(keep_headers("etag"), drop_headers("x-served-by"))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
