use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
fn handler() -> impl Future<Output = u32> + Send {
    async { 1 }
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
