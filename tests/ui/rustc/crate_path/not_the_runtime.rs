use axum::{Json, Router, http::Method, routing::post};
use idempotent_runtime::{Idempotency, idempotent};

mod facade {
    pub mod runtime {}
}

async fn find_out() {}

#[idempotent(
    crate = self::facade::runtime,
    ttl = "1h",
    on_crash = find_out,
    engine = axum::extract::State<Idempotency>,
    state = Idempotency,
    fingerprint(json)
)]
async fn handler(_: Method, Json(n): Json<u32>) -> Result<String, ()> {
    Ok(n.to_string())
}

fn main() {
    let _: Router<Idempotency> = Router::new().route("/", post(handler));
}
