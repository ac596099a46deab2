use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use sqlx::Sqlite;

#[idempotent(transaction = false)]
async fn handler(tx: Option<idempotent_runtime::Transaction<Sqlite>>) {
    drop(tx);
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
