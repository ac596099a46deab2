use axum::{Router, extract::State, routing::post};
use idempotent_runtime::idempotent;

#[derive(Clone)]
struct App;

#[idempotent(engine = State<App>, state = App)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
