use axum::{Router, extract::State, routing::post};
use idempotent_runtime::{Crash, Recovery, idempotent};

#[derive(Clone)]
struct App;

async fn find_out(_: Crash, _: State<App>) -> Recovery {
    Recovery::StillUnknown
}

#[idempotent(on_crash = find_out)]
async fn handler(_: State<App>) {}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
