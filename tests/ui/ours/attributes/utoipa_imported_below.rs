use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
#[allow(unused_imports)]
use utoipa::path;

#[idempotent]
#[path(post, path = "/")]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
