use axum::{Router, routing::post};
use idempotent_runtime::idempotent;

#[idempotent(tll = "1h", inner = handler)]
#[idempotent]
unsafe fn handler(a: &str, b: impl Sized, String(c): String, d: String) -> u32 {
    let _ = (a, b, c, d);
    0
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
