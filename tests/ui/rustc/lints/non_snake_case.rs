#![deny(warnings)]

use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent]
async fn Handler(Text: String) -> String {
    Text
}

fn main() {
    let _: Router = Router::new().route("/", post(Handler));
}
