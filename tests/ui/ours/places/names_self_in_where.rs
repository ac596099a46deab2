use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

struct Api;

impl Api {
    #[idempotent]
    async fn handler()
    where
        Self: Sized,
    {
    }
}

fn main() {
    let _: Router = Router::new().route("/", post(Api::handler));
}
