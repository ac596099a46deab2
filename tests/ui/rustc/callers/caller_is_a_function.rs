use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

async fn current_user() -> String {
    String::new()
}

#[idempotent(caller = current_user)]
async fn handler(body: String) -> String {
    body
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
