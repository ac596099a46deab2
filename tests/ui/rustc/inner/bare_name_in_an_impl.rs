use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

struct Api;

impl Api {
    #[idempotent(inner = plain)]
    async fn handler() {}
}

fn main() {
    let _: Router = Router::new().route("/", post(Api::handler));
}
