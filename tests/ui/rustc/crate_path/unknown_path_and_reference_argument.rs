use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(crate = idempotency)]
async fn handler(name: &str) -> String {
    name.to_owned()
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
