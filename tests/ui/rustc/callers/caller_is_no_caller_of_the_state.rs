use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[derive(Clone)]
struct App;

#[idempotent(caller = axum::http::HeaderMap, state = App)]
async fn handler(body: String) -> String {
    body
}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
