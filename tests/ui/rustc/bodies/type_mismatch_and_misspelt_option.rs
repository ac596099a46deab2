use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(tll = "1h")]
async fn handler() -> String {
    1
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
