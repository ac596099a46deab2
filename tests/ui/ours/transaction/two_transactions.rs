use axum::{Router, routing::post};
use idempotent_runtime::{Transaction, idempotent};
use sqlx::Sqlite;

#[idempotent(transaction)]
async fn handler(mut tx: Transaction<Sqlite>, mut other: Transaction<Sqlite>) {
    tx.rollback_only();
    other.rollback_only();
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
