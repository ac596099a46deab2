use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[derive(Clone)]
struct App;

#[idempotent(state = App)]
async fn handler(amount: Option<u32>) -> Option<u32> {
    amount
}

fn main() {
    let _: Router<App> = Router::new().route("/", post(handler));
}
