use axum::{Json, Router, extract::State, routing::post};
use idempotent_runtime::idempotent;

#[derive(Clone)]
struct App;

#[idempotent(state = App)]
async fn handler(State(app): State<App>, amount: u32, Json(n): Json<u32>) {
    let _ = (app, amount, n);
}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
