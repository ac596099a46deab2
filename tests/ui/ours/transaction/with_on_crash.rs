use axum::{Router, routing::post};
use idempotent_runtime::{Transaction, idempotent};
use sqlx::Sqlite;

#[idempotent(transaction, on_crash = "retry")]
async fn handler(mut tx: Transaction<Sqlite>) {
    tx.rollback_only();
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
