use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(transaction)]
async fn handler(body: String) -> String {
    body
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
