use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

struct Api;

#[idempotent]
impl Api {
    async fn handler() {}
}

fn main() {
    let _: Router = Router::new().route("/", post(Api::handler));
}
