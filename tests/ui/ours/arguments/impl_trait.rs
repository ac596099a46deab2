use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn handler(text: impl ToString) -> String {
    text.to_string()
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
