//! An application's own pool, and what an execution costs.

use idempotent_runtime::store::{
    AnyStore, Store,
    conformance::key,
    sql::{ConnectError, mysql::MySqlStore},
};
use sqlx::{Executor as _, mysql::MySqlPoolOptions};

use super::{new_table, run};
use crate::{
    servers::mariadb::MariaDb,
    toolbox::{done, execute, new_claim, replays},
};

#[tokio::test]
async fn the_applications_own_pool_is_used_and_checked() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let pool = MySqlPoolOptions::new().max_connections(1);
    let pool = pool.connect(&server.url()).await.unwrap();
    let builder = MySqlStore::builder().table(new_table());
    let store = builder.from_pool(pool.clone());
    let missing = store.check().await;
    assert!(matches!(missing, Err(ConnectError::MissingTable { .. })));
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();

    pool.execute("set autocommit = 0").await.unwrap();
    let error = store.check().await.unwrap_err();
    assert!(error.to_string().contains("autocommit"), "{error}");
}

/// Counted in the server's log of all statements.
#[tokio::test]
async fn a_first_execution_costs_two_round_trips_and_a_replay_one() {
    let Some(server) = MariaDb::with(&["--general-log=1", "--general-log-file=general"]) else {
        return;
    };
    let builder = MySqlStore::builder().migrate(true).connections(1);
    let store = AnyStore::new(builder.connect(&server.url()).await.unwrap());
    let mark = async || run(&server, "select 'mark'").await;
    let logged = || {
        let log = server.general_log();
        let (_, since) = log.rsplit_once("select 'mark'").expect("the mark");
        let round_trip = |line: &&str| {
            ["Query\t", "Execute\t", "Ping"]
                .iter()
                .any(|command| line.contains(command))
        };
        let lines = since.lines().filter(round_trip);
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    // The second time, the statements are prepared.
    for n in 1..=2 {
        mark().await;
        execute(&store, &new_claim(key(n)), &done()).await;
        let first = logged();
        assert_eq!(first.len(), 2, "{first:#?}");
        assert!(
            first[0].contains("insert ignore") && first[1].contains("Execute"),
            "{first:#?}"
        );

        mark().await;
        replays(&store, key(n), &done()).await;
        let replay = logged();
        assert_eq!(replay.len(), 1, "{replay:#?}");
        assert!(replay[0].contains("insert ignore"), "{replay:#?}");
    }
}
