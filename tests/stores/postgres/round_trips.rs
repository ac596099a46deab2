//! What an execution costs.

use idempotent_runtime::store::{AnyStore, conformance::key, sql::postgres::PostgresStore};

use crate::{
    servers::postgres::Postgres,
    sql::server::ServerKind,
    toolbox::{done, execute, new_claim, replays},
};

/// Counted in the server's log of all statements.
#[tokio::test]
async fn a_first_execution_costs_two_statements_and_a_replay_one() {
    let Some(server) = Postgres::with(&["log_statement=all"]) else {
        return;
    };
    let builder = PostgresStore::builder().migrate(true).connections(1);
    let store = AnyStore::new(builder.connect(&server.url()).await.unwrap());
    let mark = async || {
        let mark = "select 1 -- mark";
        ServerKind::Postgres.run(&server.url(), mark).await;
    };
    let logged = || {
        let log = server.log();
        let (_, since) = log.rsplit_once("mark").expect("the mark");
        let statement =
            |line: &&str| line.contains("LOG:  execute ") || line.contains("LOG:  statement: ");
        let lines = since.lines().filter(statement);
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    // The second time, the statements are prepared.
    for n in 1..=2 {
        mark().await;
        execute(&store, &new_claim(key(n)), &done()).await;
        let first = logged();
        assert_eq!(first.len(), 2, "{first:#?}");

        mark().await;
        replays(&store, key(n), &done()).await;
        let replay = logged();
        assert_eq!(replay.len(), 1, "{replay:#?}");
    }
}
