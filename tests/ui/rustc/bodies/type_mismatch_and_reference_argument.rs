use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler(name: &str) -> String {
    let n: u32 = name;
    n.to_string()
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
