//! The smallest useful program: a payment is made once, however often its request is sent.
//!
//! ```text
//! cargo run --example quickstart
//! curl -i 127.0.0.1:8000/payments -H 'idempotency-key: order-42' \
//!     -H 'content-type: application/json' -d '{"amount": 100}'              (twice, or twice at once)
//! ```
//!
//! Without any set-up the records are kept in this process's memory, and the log says so. With a store, for all routes:
//! `Idempotency::builder().store(store::connect(url).await?).install()?`. `payments.rs` is the complete program:
//! authentication, a store, a graceful shutdown, metrics.

use std::time::Duration;

use axum::{Json, Router, http::StatusCode, routing::post};
use idempotent_runtime::idempotent;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Payment {
    amount: u64,
}

#[idempotent(ttl = "24h", wait = true)]
async fn create_payment(Json(payment): Json<Payment>) -> (StatusCode, Json<Payment>) {
    println!("paying {}", payment.amount);
    tokio::time::sleep(Duration::from_secs(1)).await; // the bank is slow
    (StatusCode::CREATED, Json(payment))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new().route("/payments", post(create_payment));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).await
}
