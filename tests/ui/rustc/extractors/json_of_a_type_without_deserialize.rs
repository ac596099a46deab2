use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use axum::Json;

struct Payment;

#[idempotent(state = ())]
async fn handler(Json(payment): Json<Payment>) {
    let _ = payment;
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
