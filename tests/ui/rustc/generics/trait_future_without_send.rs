#![allow(async_fn_in_trait)]

use axum::extract::State;
use idempotent_runtime::idempotent;

trait Ledger: Clone + Send + Sync {
    async fn enter(&self);
}

#[idempotent]
async fn handler<L: Ledger>(State(ledger): State<L>) {
    ledger.enter().await;
}

fn main() {}
