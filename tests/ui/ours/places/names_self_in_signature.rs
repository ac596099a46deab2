use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

struct Api;

impl Api {
    #[idempotent]
    async fn handler(_: axum::Extension<std::sync::Arc<Self>>) {}
}

fn main() {
    let _: Router = Router::new().route("/", post(Api::handler));
}
