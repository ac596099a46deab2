use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(tll = "1h", wait = 1, lease = "0s", fingerprint(jsn, headers("a b")))]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
