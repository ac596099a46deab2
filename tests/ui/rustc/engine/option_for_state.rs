use axum::{Router, routing::post};
use idempotent_runtime::{Idempotency, idempotent};

#[derive(Clone)]
struct App;

#[idempotent(engine = Option<Idempotency>, state = App)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
