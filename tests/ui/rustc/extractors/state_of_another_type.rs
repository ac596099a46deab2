use axum::{Router, extract::State, routing::post};
use idempotent_runtime::idempotent;

#[derive(Clone)]
struct App;

#[derive(Clone)]
struct Other;

#[idempotent(state = App)]
async fn handler(State(other): State<Other>, State(app): State<App>) {
    let _ = (app, other);
}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
