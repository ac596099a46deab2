use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler(a u32) -> String {
    String::new()
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
