use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use std::rc::Rc;

#[idempotent]
async fn handler() -> String {
    let shared = Rc::new(1);
    std::future::ready(()).await;
    shared.to_string()
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
