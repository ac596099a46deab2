use axum::{Router, routing::post};
use idempotent_runtime::{Idempotency, idempotent};
use axum::extract::State;

#[idempotent(engine = State<Idempotency>)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
