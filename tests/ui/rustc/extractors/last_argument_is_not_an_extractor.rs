use axum::{Router, extract::State, routing::post};
use idempotent_runtime::idempotent;

#[derive(Clone)]
struct App;

struct Payment;

#[idempotent(state = App)]
async fn handler(State(app): State<App>, payment: Payment) {
    let _ = (app, payment);
}

fn main() {
    let _: Router = Router::new().route("/", post(handler)).with_state(App);
}
