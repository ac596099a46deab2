use axum::{Router, extract::State, routing::post};
use idempotent_runtime::idempotent;

#[derive(Clone)]
struct App;

#[idempotent(state = App, on_crash = find_out)]
async fn handler(_: State<App>) {}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
