use axum::{Router, extract::State as St, routing::post};
use idempotent_runtime::{Idempotency, idempotent};

#[derive(Clone)]
struct App;

#[idempotent(engine = St<Idempotency>, state = App)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
