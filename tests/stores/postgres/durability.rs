//! Sessions that commit durably.

use idempotent_runtime::store::{Store as _, conformance::key, sql::postgres::PostgresStore};

use crate::{servers::postgres::Postgres, toolbox::new_claim};

#[tokio::test]
async fn the_stores_own_sessions_commit_durably_whatever_the_servers_default() {
    let Some(server) = Postgres::with(&["synchronous_commit=off"]) else {
        return;
    };
    let builder = PostgresStore::builder().migrate(true);
    let store = builder.connect(&server.url()).await;
    let store = store.expect("the store sets its sessions");
    store.acquire(&new_claim(key(1))).await.unwrap();
}
