use axum::{Router, routing::post};
use idempotent_runtime::{Recovery, idempotent};

async fn find_out(id: u32) -> Recovery {
    let _ = id;
    Recovery::StillUnknown
}

#[idempotent(on_crash = find_out)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
