use axum::{Router, routing::post};
use idempotent_runtime::{Crash, Recovery, idempotent};

fn find_out(_: Crash) -> Recovery {
    Recovery::StillUnknown
}

#[idempotent(on_crash = find_out)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
