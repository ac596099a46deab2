use axum::{Extension, Router, routing::post};
use idempotent_runtime::{Idempotency, idempotent};

#[idempotent(engine = Extension<Idempotency>)]
async fn handler() {}

fn main() {
    let engine = Idempotency::builder().build().expect("valid");
    let _: Router = Router::new().route("/", post(handler)).layer(Extension(engine));
}
