use axum::{Router, routing::post};
use idempotent_runtime::{Crash, Recovery, idempotent};

async fn find_out(_: Crash, _: u32) -> Recovery {
    Recovery::StillUnknown
}

#[idempotent(on_crash = find_out)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
