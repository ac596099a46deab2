use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

struct Api;

impl Api {
    #[idempotent]
    async fn handler(#[cfg(all())] &self, #[cfg(any())] n: u32) {}
}

#[idempotent]
async fn other() {}

fn main() {
    let _: Router = Router::new().route("/", post(other));
    let _ = Api.handler();
}
