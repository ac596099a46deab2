use axum::{Json, Router, http::Method, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(crate = idempotency)]
pub async fn handler<T: Send + Sync + 'static>(_: Method, Json(n): Json<u32>) -> String {
    n.to_string()
}

fn main() {
    let _: Router = Router::new().route("/", post(handler::<u8>));
}
