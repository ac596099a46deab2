use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use http::Method;

#[idempotent]
async fn handler(
    #[cfg(unix)] _: Method,
    #[cfg(unix)] _: Method,
    #[cfg(unix)] _: Method,
    #[cfg(unix)] _: Method,
    #[cfg(unix)] _: Method,
) {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
