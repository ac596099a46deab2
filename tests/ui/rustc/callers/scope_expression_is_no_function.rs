use axum::{Router, routing::post};
use idempotent_runtime::{Scope, idempotent};

#[idempotent(scope = Scope::new("tenant"))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
