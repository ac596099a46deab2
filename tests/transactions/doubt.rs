//! A COMMIT whose request or reply is lost, frozen or late: both rows and record are there, or neither, and the client
//! hears which.

use std::sync::Arc;

use idempotent_runtime::Policy;
use sqlx::{Connection as _, MySql, MySqlConnection, Postgres};
use tokio::task::block_in_place;

use crate::{
    app::{Answer, App, Control},
    commits::{Commits, Treatment},
    database::{TestDatabase, World},
    servers::{mariadb::MariaDb, postgres, until},
};

trait Server: TestDatabase {
    fn port() -> Option<u16>;
    fn url_of(port: u16) -> String;
}

impl Server for Postgres {
    fn port() -> Option<u16> {
        Some(postgres::Postgres::shared()?.port())
    }

    fn url_of(port: u16) -> String {
        postgres::Postgres::url_of(port)
    }
}

impl Server for MySql {
    fn port() -> Option<u16> {
        Some(MariaDb::shared()?.port())
    }

    fn url_of(port: u16) -> String {
        MariaDb::url_of(port)
    }
}

/// An app behind a proxy.
async fn behind<Db: Server>(treated: &'static str) -> Option<(App<Db>, Commits)> {
    let world = World::<Db>::new().await?;
    let proxy = Commits::before(Db::port()?, treated).await;
    let store = Db::open(&Db::url_of(proxy.port()), &world.records, 5).await;
    let app = App::over(world, store, Policy::new(), Control::default());
    // Its connections are made, and its statements prepared.
    app.write("first", "ok")
        .await
        .assert(200, "written 1", false);
    Some((app, proxy))
}

/// One row for each record that is completed with a success.
async fn assert_whole<Db: Server>(app: &App<Db>) {
    assert_eq!(app.world.effects().await, app.world.completed().await);
}

/// Sends the request again until it has an answer that is final.
async fn retried<Db: Server>(app: &App<Db>, name: &str, act: &str) -> Answer {
    loop {
        let answer = app.write(name, act).await;
        if answer.status < 400 {
            return answer;
        }
        assert!(matches!(answer.status, 409 | 503), "{answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn a_lost_commit_is_rolled_back_and_a_retry_executes<Db: Server>() {
    let Some((app, proxy)) = behind::<Db>("COMMIT").await else {
        return;
    };
    proxy.treat(Treatment::LoseRequest);
    app.write("a", "ok")
        .await
        .assert_problem(503, "store_unavailable");
    assert!(proxy.has_treated());
    assert_eq!(app.world.effects().await, 1, "nothing of it is there");
    retried(&app, "a", "ok")
        .await
        .assert(200, "written 3", false);
    assert_whole(&app).await;
}

/// The charge of the lost attempt has happened: the next one knows it.
async fn the_steps_of_a_lost_commit_are_known_to_the_retry<Db: Server>() {
    for treatment in [Treatment::LoseRequest, Treatment::Freeze] {
        let Some((app, proxy)) = behind::<Db>("COMMIT").await else {
            return;
        };
        proxy.treat(treatment);
        app.write("a", "step")
            .await
            .assert_problem(503, "store_unavailable");
        assert!(proxy.has_treated());
        let second = retried(&app, "a", "step").await;
        second.assert(200, "charged in run 2", false);
        assert_eq!(app.control.runs(), 3);
        assert_whole(&app).await;
    }
}

async fn a_commit_whose_reply_is_lost_is_found_committed<Db: Server>() {
    let Some((app, proxy)) = behind::<Db>("COMMIT").await else {
        return;
    };
    proxy.treat(Treatment::LoseReply);
    app.write("a", "ok").await.assert(200, "written 2", false);
    assert!(proxy.has_treated());
    app.write("a", "ok").await.assert(200, "written 2", true);
    assert_whole(&app).await;
}

async fn a_frozen_commit_is_rolled_back_and_a_retry_executes<Db: Server>() {
    let Some((app, proxy)) = behind::<Db>("COMMIT").await else {
        return;
    };
    proxy.treat(Treatment::Freeze);
    app.write("a", "ok")
        .await
        .assert_problem(503, "store_unavailable");
    assert!(proxy.has_treated());
    retried(&app, "a", "ok")
        .await
        .assert(200, "written 3", false);
    assert_whole(&app).await;
}

async fn a_commit_that_arrives_after_the_decision_commits_nothing<Db: Server>() {
    let Some((app, proxy)) = behind::<Db>("COMMIT").await else {
        return;
    };
    proxy.treat(Treatment::Delay);
    app.write("a", "ok")
        .await
        .assert_problem(503, "store_unavailable");
    assert!(proxy.has_treated());
    proxy.let_go();
    retried(&app, "a", "ok")
        .await
        .assert(200, "written 3", false);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_whole(&app).await;
    app.write("a", "ok").await.assert(200, "written 3", true);
}

async fn a_completion_without_an_answer_is_rolled_back<Db: Server>(treatment: Treatment) {
    // A word of the completion: in an execution of the prepared statement there is only the record's key.
    let Some((app, proxy)) = behind::<Db>("a-completion").await else {
        return;
    };
    proxy.treat(treatment);
    let answer = app.write("a-completion", "ok").await;
    assert!(
        proxy.has_treated(),
        "the handler's own statement has the word"
    );
    assert!(answer.status >= 500, "{answer:?}");
    assert_eq!(app.world.effects().await, 1);
}

/// The completion changed nothing, because the handler has committed by itself, and the connection breaks before that is
/// known: what the handler wrote is committed, so it must not run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_after_a_commit_of_the_handlers_own_releases_nothing() {
    for treatment in [Treatment::LoseRequest, Treatment::LoseReply] {
        let Some((app, proxy)) = Box::pin(behind::<Postgres>("ROLLBACK")).await else {
            return;
        };
        proxy.treat(treatment);
        app.write("a", "commit")
            .await
            .assert_problem(500, "transaction_failed");
        assert!(proxy.has_treated());
        let again = app.write("a", "ok").await;
        again.assert_problem(500, "transaction_failed");
        assert_eq!((again.replayed, app.control.runs()), (true, 2));
        assert_eq!(app.world.effects().await, 2);
    }
}

/// As after a restart of the server: nothing has happened on it, so the transaction begins on another.
async fn a_connection_that_broke_since_its_last_use_costs_no_request<Db: Server>() {
    let Some((app, proxy)) = behind::<Db>("COMMIT").await else {
        return;
    };
    proxy.cut();
    app.write("a", "ok").await.assert(200, "written 2", false);
    assert_whole(&app).await;
}

macro_rules! on_each_server {
    ($($name:ident),* $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name::<sqlx::Postgres>().await;
            })*
        }
        mod on_mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name::<sqlx::MySql>().await;
            })*
        }
    };
}

on_each_server! {
    a_lost_commit_is_rolled_back_and_a_retry_executes,
    a_commit_whose_reply_is_lost_is_found_committed,
    the_steps_of_a_lost_commit_are_known_to_the_retry,
    a_frozen_commit_is_rolled_back_and_a_retry_executes,
    a_commit_that_arrives_after_the_decision_commits_nothing,
    a_statement_of_the_handlers_whose_reply_is_lost_rolls_back,
    a_connection_that_broke_since_its_last_use_costs_no_request,
}

async fn a_statement_of_the_handlers_whose_reply_is_lost_rolls_back<Db: Server>() {
    a_completion_without_an_answer_is_rolled_back::<Db>(Treatment::LoseReply).await;
}

/// Whoever kills the session that waits for its replica has the COMMIT acknowledged without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waits_for_its_semi_synchronous_replica_is_left_alone() {
    let settings = [
        "--log-bin=binary",
        "--server-id=1",
        "--sync-binlog=1",
        "--rpl-semi-sync-master-timeout=600000",
    ];
    let Some(server) = block_in_place(|| MariaDb::with(&settings)) else {
        return;
    };
    let world = Box::pin(World::<MySql>::on(&server.url())).await;
    let app = Arc::new(App::new(world));
    app.write("first", "ok")
        .await
        .assert(200, "written 1", false);
    let set = async |on: &str| {
        let statement = format!("set global rpl_semi_sync_master_enabled = {on}");
        let mut connection = app.world.pool.acquire().await.expect("a connection");
        MySql::run(&mut connection, statement).await.expect("set");
    };
    // Its claim is there before there has to be a replica.
    let waiting = app.in_task("a", "wait");
    app.control.until_runs(2).await;
    set("on").await;
    app.control.open(1);
    let waiting = waiting.await.expect("an answer");
    waiting.assert_problem(409, "outcome_unknown");
    let waits = "select count(*) from information_schema.processlist where state like 'Waiting for semi-sync ACK%'";
    let waits = MySql::number(&app.world.pool, waits.into()).await;
    assert!(waits.expect("a count") > 0, "its session lives");
    set("off").await;
    let answer = loop {
        let answer = app.write("a", "ok").await;
        if answer.status != 409 {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    answer.assert(200, "written 2", true);
    assert_eq!((app.control.runs(), app.world.effects().await), (2, 2));
}

/// Its number is somebody else's by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_the_server_before_its_restart_is_not_killed_in_another() {
    let Some(mut server) = block_in_place(MariaDb::start) else {
        return;
    };
    let world = Box::pin(World::<MySql>::on(&server.url())).await;
    let proxy = Commits::before(server.port(), "COMMIT").await;
    let url = MySql::url_of(proxy.port());
    let store = MySql::open(&url, &world.records, 5);
    let store = Box::pin(store).await;
    let app = App::over(world, store, Policy::new(), Control::default());
    let app = Arc::new(app);
    app.write("first", "ok")
        .await
        .assert(200, "written 1", false);
    // Starts are told apart by whole seconds.
    let age = "select cast(variable_value as signed) from information_schema.global_status where variable_name = 'UPTIME'";
    while MySql::number(&app.world.pool, age.into())
        .await
        .expect("an age")
        < 4
    {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    proxy.treat(Treatment::Freeze);
    let frozen = app.in_task("a", "ok");
    block_in_place(|| until("the COMMIT", || proxy.has_treated().then_some(())));
    // Nobody asks about the COMMIT before its number is given again.
    proxy.admit(false);
    block_in_place(|| {
        server.kill();
        server.restart();
    });
    let mut strangers = Vec::new();
    for _ in 0..60 {
        let stranger = MySqlConnection::connect(&server.url()).await;
        strangers.push(stranger.expect("a connection"));
    }
    proxy.admit(true);
    let answer = frozen.await.expect("an answer");
    assert!(answer.status >= 400, "{answer:?}");
    retried(&app, "a", "ok").await;
    for mut stranger in strangers {
        stranger.ping().await.expect("a session that lives");
    }
}
