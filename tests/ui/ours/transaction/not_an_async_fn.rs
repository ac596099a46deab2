use std::future::{Future, ready};

use axum::{Router, routing::post};
use idempotent_runtime::{Transaction, idempotent};
use sqlx::Sqlite;

#[idempotent(transaction)]
fn handler(mut tx: Transaction<Sqlite>) -> impl Future<Output = &'static str> {
    tx.rollback_only();
    ready("done")
}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
