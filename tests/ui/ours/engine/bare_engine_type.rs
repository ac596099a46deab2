use axum::{Router, routing::post};
use idempotent_runtime::{Idempotency, idempotent};

#[idempotent(engine = Idempotency)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
