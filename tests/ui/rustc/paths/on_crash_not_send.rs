use axum::{Router, routing::post};
use idempotent_runtime::{Crash, Recovery, idempotent};
use std::rc::Rc;

async fn find_out(_: Crash) -> Recovery {
    let shared = Rc::new(1);
    std::future::ready(()).await;
    drop(shared);
    Recovery::StillUnknown
}

#[idempotent(on_crash = find_out)]
async fn handler() {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
