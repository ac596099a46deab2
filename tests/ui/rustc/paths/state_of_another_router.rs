use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

struct App;

#[idempotent(state = App)]
async fn handler(_: axum::http::Method) {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
