use axum::{Router, routing::post};
use idempotent_runtime::{idempotent, scope};

#[derive(Clone)]
struct Account;

#[idempotent(scope = scope::extension::<Account>())]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
