//! Sessions that commit durably, and servers that do not.

use idempotent_runtime::store::{
    ConnectOptions, Store as _, Weakness,
    conformance::key,
    sql::{
        ConnectError,
        postgres::{PostgresStore, PostgresStoreBuilder},
    },
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

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
async fn a_server_that_a_crash_or_a_failover_may_take_writes_from_is_refused_unless_accepted() {
    for (settings, weakness, named) in [
        (&["fsync=off"][..], Weakness::FsyncOff, "`fsync` is `off`"),
        (
            &["full_page_writes=off"],
            Weakness::FullPageWritesOff,
            "`full_page_writes` is `off`",
        ),
        (
            &[
                "synchronous_commit=local",
                "synchronous_standby_names=other",
            ],
            Weakness::SynchronousCommitLocal,
            "`synchronous_commit` is `local`",
        ),
    ] {
        let Some(server) = Postgres::with(settings) else {
            return;
        };
        let builder = || PostgresStore::builder().migrate(true);
        let url = server.url();
        let error = builder().connect(&url).await.expect_err(named);
        let text = error.to_string();
        assert!(text.contains(named), "{text}");
        let accept = format!("`accept(Weakness::{weakness:?})`");
        assert!(text.contains(&accept), "{text}");
        match error {
            ConnectError::Weak { found, .. } => {
                assert_eq!(found.len(), 1, "{found:?}");
                assert_eq!(found[0].weakness, weakness);
            }
            other => panic!("{other:?}"),
        }
        let others = Weakness::ALL.iter().filter(|other| **other != weakness);
        let others = others.fold(builder(), |builder, other| builder.accept(*other));
        let refused = others.accept_unverified().connect(&url).await;
        refused.expect_err("only other weaknesses are accepted");
        let accepted = builder().accept(weakness).connect(&url).await;
        accepted.expect("it is accepted");
        let options = ConnectOptions::new().accept(weakness);
        options.connect(&url).await.expect("it is accepted");
    }
}

/// Two weaknesses are both named, and each has to be accepted.
#[tokio::test]
async fn all_weaknesses_of_a_server_are_named() {
    let Some(server) = Postgres::with(&["fsync=off", "full_page_writes=off"]) else {
        return;
    };
    let builder = || PostgresStore::builder().migrate(true);
    let both = [Weakness::FsyncOff, Weakness::FullPageWritesOff];
    let found = async |builder: PostgresStoreBuilder| match builder.connect(&server.url()).await {
        Err(ConnectError::Weak { found, .. }) => found
            .into_iter()
            .map(|found| found.weakness)
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(found(builder()).await, both);
    assert_eq!(found(builder().accept(both[0])).await, both[1..]);
    let accepting = builder().accept(both[0]).accept(both[1]);
    accepting.connect(&server.url()).await.expect("both");
}

/// The store's own sessions set it; those of an application's pool have what the application chose.
#[tokio::test]
async fn a_pool_whose_sessions_do_not_wait_for_their_commits_is_refused() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let options: PgConnectOptions = server.url().parse().unwrap();
    let pool = PgPoolOptions::new();
    let pool = pool.connect_lazy_with(options.options([("synchronous_commit", "off")]));
    let store = PostgresStore::builder().from_pool(pool.clone());
    store.migrate().await.unwrap();
    let error = store.check().await.expect_err("commits are not waited for");
    assert!(
        error
            .to_string()
            .contains("`accept(Weakness::SynchronousCommitOff)`"),
        "{error}"
    );
    let accepting = PostgresStore::builder().accept(Weakness::SynchronousCommitOff);
    accepting.from_pool(pool).check().await.unwrap();
}
