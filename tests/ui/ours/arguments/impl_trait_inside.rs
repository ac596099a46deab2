use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use axum::Json;

#[idempotent]
async fn handler(Json(text): Json<impl serde::de::DeserializeOwned>) {
    let _ = text;
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
