use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

struct Api;

impl Api {
    const NAME: &'static str = "api";

    #[idempotent]
    async fn handler() -> &'static str {
        Self::NAME
    }
}

fn main() {
    let _: Router = Router::new().route("/", post(Api::handler));
}
