use axum::{Router, routing::post};
use idempotent_runtime::{Caller, Scope, idempotent};

#[derive(Clone)]
struct App;

struct User;

impl Caller for User {
    fn scope(&self) -> Scope {
        Scope::new("user")
    }
}

#[idempotent(caller = User)]
async fn handler(body: String) -> String {
    body
}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
