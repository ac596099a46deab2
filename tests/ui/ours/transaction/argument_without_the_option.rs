use axum::{Router, routing::post};
use idempotent_runtime::{Transaction, idempotent};
use sqlx::Sqlite;

#[idempotent]
async fn handler(mut tx: Transaction<Sqlite>, body: String) -> String {
    tx.rollback_only();
    body
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
