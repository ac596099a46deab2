use axum::{Router, http::request::Parts, routing::post};
use idempotent_runtime::{Scope, idempotent};

async fn tenant_of(_: &Parts) -> Option<Scope> {
    None
}

#[idempotent(scope = tenant_of)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
