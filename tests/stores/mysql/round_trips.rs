//! What an execution costs.

use idempotent_runtime::store::{AnyStore, conformance::key, sql::mysql::MySqlStore};

use super::run;
use crate::{
    servers::mariadb::MariaDb,
    toolbox::{done, execute, new_claim, replays},
};

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
