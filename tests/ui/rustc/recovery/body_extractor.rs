use axum::{Json, Router, extract::State, http::Method, routing::post};
use idempotent_runtime::{Crash, Recovery, idempotent};

#[derive(Clone)]
struct App;

async fn find_out(_: Crash, _: Method, _: State<App>, _: Json<u32>) -> Recovery {
    Recovery::StillUnknown
}

#[idempotent(state = App, on_crash = find_out)]
async fn handler(_: State<App>, _: Json<u32>) {}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
