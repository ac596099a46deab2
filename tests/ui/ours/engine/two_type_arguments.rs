use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(engine = Result<u8, u16>)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
