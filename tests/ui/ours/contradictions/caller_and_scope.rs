use axum::{Extension, Router, http::request::Parts, routing::post};
use idempotent_runtime::{Scope, idempotent};

fn tenant_of(_: &Parts) -> Option<Scope> {
    None
}

#[idempotent(caller = Extension<Scope>, scope = tenant_of)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
