use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[derive(Clone)]
struct Api;

impl Api {
    #[idempotent]
    async fn handler(&self) {}
}

fn main() {
    let api = Api;
    let _: Router = Router::new().route("/", post(move || async move { api.handler().await }));
}
