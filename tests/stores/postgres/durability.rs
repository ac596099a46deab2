//! Sessions that commit durably, and servers that do not.

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

#[tokio::test]
async fn a_server_that_a_crash_or_a_failover_may_take_writes_from_is_refused() {
    for (settings, named) in [
        (&["full_page_writes=off"][..], "full_page_writes"),
        (
            &[
                "synchronous_commit=local",
                "synchronous_standby_names=other",
            ],
            "synchronous_commit = local",
        ),
    ] {
        let Some(server) = Postgres::with(settings) else {
            return;
        };
        let builder = || PostgresStore::builder().migrate(true);
        let error = builder().connect(&server.url()).await.expect_err(named);
        assert!(error.to_string().contains(named), "{error}");
        let url = server.url();
        let accepted = builder().accept_weaker_durability().connect(&url);
        accepted.await.expect("weaker durability is accepted");
    }
}
