//! What is wrong before the first verb, and what the first ones cost.

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, Write,
    conformance::{key, response},
    sql::{ConnectError, TableName, mysql::MySqlStore},
};
use sqlx::{Executor as _, mysql::MySqlPoolOptions};

use super::{MariaDbHarness, new_table};
use crate::{
    servers::{free_port, mariadb::MariaDb},
    toolbox::{chain, new_claim},
};

async fn refusal(url: &str) -> ConnectError {
    MySqlStore::connect(url)
        .await
        .expect_err("must not connect")
}

#[tokio::test]
async fn wrong_urls_are_refused_without_showing_the_password() {
    for url in [
        "",
        "mysql",
        "postgres://u:hunter2@localhost/x",
        "mysql://u:hunter2@[::1/x",
        "mysql://u:hunter2@localhost",
    ] {
        let error = refusal(url).await;
        assert!(
            matches!(error, ConnectError::Url { .. }),
            "{url}: {error:?}"
        );
        assert!(
            !format!("{error:?} {}", chain(&error)).contains("hunter2"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let error = refusal(&format!("mariadb://root@127.0.0.1:{}/mysql", free_port())).await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(
        chain(&error).contains("Connection refused"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_wrong_password_or_database_is_refused() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let user = "create or replace user secretive@'127.0.0.1' identified by 'right'";
    MariaDbHarness::behind().await.execute(user).await.unwrap();
    let port = server.port();
    for url in [
        format!("mysql://secretive:wrong@127.0.0.1:{port}/mysql"),
        format!("mysql://secretive:right@127.0.0.1:{port}/mysql"),
        format!("mysql://root@127.0.0.1:{port}/nothing"),
    ] {
        let error = refusal(&url).await;
        assert!(
            matches!(error, ConnectError::Authentication { .. }),
            "{url}: {error:?}"
        );
        assert!(!chain(&error).contains("wrong"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_table_may_be_in_another_database_and_have_any_name() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    MariaDbHarness::behind()
        .await
        .execute("create database if not exists billing")
        .await
        .unwrap();
    let table: TableName = "billing.order".parse().unwrap();
    let store = MySqlStore::builder()
        .table(table)
        .migrate(true)
        .connect(&server.url())
        .await
        .unwrap();
    let owner = new_claim(key(1));
    assert_eq!(
        store.acquire(&owner).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
    store.purge_expired(10).await.unwrap();
    let count = "select count(*) from billing.`order`";
    let records: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut MariaDbHarness::behind().await)
        .await
        .unwrap();
    assert_eq!(records, 1);
}

#[tokio::test]
async fn the_applications_own_pool_is_used_and_looked_at() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let pool = MySqlPoolOptions::new()
        .max_connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    let store = MySqlStore::builder()
        .table(new_table())
        .from_pool(pool.clone());
    assert!(matches!(
        store.check().await,
        Err(ConnectError::MissingTable { .. })
    ));
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();

    pool.execute("set autocommit = 0").await.unwrap();
    let error = store.check().await.unwrap_err();
    assert!(error.to_string().contains("autocommit"), "{error}");
}

/// Counted by the server, which logs everything it is asked to do.
#[tokio::test]
async fn a_first_execution_costs_two_round_trips_and_a_replay_one() {
    let Some(server) = MariaDb::with(&["--general-log=1", "--general-log-file=general"]) else {
        return;
    };
    let store = MySqlStore::builder()
        .migrate(true)
        .connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    let mark = async || MariaDbHarness::set(&server, "select 'mark'").await;
    let ran = || {
        let log = server.general_log();
        let (_, since) = log.rsplit_once("select 'mark'").expect("the mark");
        let asked = |line: &&str| {
            ["Query\t", "Execute\t", "Ping"]
                .iter()
                .any(|command| line.contains(command))
        };
        since
            .lines()
            .filter(asked)
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    let answer = Outcome::Response(response(201, &[], b"done"));
    for n in 1..=2 {
        let owner = new_claim(key(n));
        mark().await;
        assert_eq!(
            store.acquire(&owner).await.unwrap(),
            Acquisition::Acquired { attempt: 1 }
        );
        assert_eq!(
            store.complete(&owner.held(), &answer).await.unwrap(),
            Write::Applied
        );
        let asked = ran();
        assert_eq!(asked.len(), 2, "{asked:#?}");
        assert!(
            asked[0].contains("insert ignore") && asked[1].contains("Execute"),
            "{asked:#?}"
        );

        mark().await;
        let again = store.acquire(&new_claim(key(n))).await.unwrap();
        assert_eq!(again, Acquisition::Completed(answer.clone()));
        let asked = ran();
        assert_eq!(asked.len(), 1, "{asked:#?}");
        assert!(asked[0].contains("insert ignore"), "{asked:#?}");
    }
}
