use axum::{Json, Router, extract::State, routing::post};
use idempotent_runtime::{Idempotency, idempotent};

#[derive(Clone)]
struct App;

#[idempotent(engine = State<Idempotency>, state = App)]
async fn handler(Json(n): Json<u32>) -> String {
    n.to_string()
}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
