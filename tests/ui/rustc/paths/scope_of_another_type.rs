use axum::{Router, routing::post};
use idempotent_runtime::{Scope, idempotent};

fn tenant_of(tenant: &str) -> Option<Scope> {
    Some(Scope::new(tenant))
}

#[idempotent(scope = tenant_of)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
