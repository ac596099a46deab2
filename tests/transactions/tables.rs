//! The record is completed where it is, wherever the handler's session looks, and as far as the database has room for it.

use std::sync::Arc;

use idempotent_runtime::{
    Policy,
    store::{
        AnyStore,
        sql::{TableName, mysql::MySqlStore},
    },
};
use sqlx::{MySql, Postgres, Sqlite};

use crate::{
    app::{App, Control},
    database::{TestDatabase, World, on_each_database},
    servers::mariadb::MariaDb,
};

on_each_database! {
    a_handler_may_look_for_its_tables_elsewhere,
    what_a_handler_sets_ends_with_its_transaction,
}

/// As by `search_path`, or `use`.
async fn a_handler_may_look_for_its_tables_elsewhere<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    app.write("a", "elsewhere")
        .await
        .assert(200, "written 1", false);
    app.write("a", "elsewhere")
        .await
        .assert(200, "written 1", true);
    assert_eq!(
        (app.world.effects().await, app.world.completed().await),
        (1, 1)
    );
}

/// The next handler has the same session, and writes where it would have without the first.
async fn what_a_handler_sets_ends_with_its_transaction<Db: TestDatabase>(world: World<Db>) {
    let store = Db::open(&world.url(), &world.records, 1).await;
    let app = App::over(world, store, Policy::new(), Control::default());
    for run in 1..=3 {
        let name = format!("n{run}");
        app.write(&name, "settings")
            .await
            .assert(200, &format!("written {run}"), false);
    }
    assert_eq!(app.world.effects().await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_in_a_named_schema_is_completed() {
    let Some(world) = World::<Postgres>::new().await else {
        return;
    };
    let named: TableName = format!("named_{0}.{0}", world.records)
        .parse()
        .expect("a name");
    let mut connection = world.pool.acquire().await.expect("a connection");
    let made = format!("create schema named_{}", world.records);
    Postgres::run(&mut connection, made)
        .await
        .expect("a schema");
    let store = Postgres::open(&world.url(), &named, 5).await;
    let app = App::over(world, store, Policy::new(), Control::default());
    for act in ["ok", "elsewhere"] {
        app.write(act, act).await;
        assert!(app.write(act, act).await.replayed);
    }
    let completed = format!("select count(*) from {named} where state <> 0");
    let completed = Postgres::number(&app.world.pool, completed).await;
    assert_eq!(
        (app.world.effects().await, completed.expect("a count")),
        (2, 2)
    );
}

/// A larger one would break the connection, and a retry would execute again without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_larger_than_a_packet_commits_and_is_not_replayed() {
    let Some(world) = World::<MySql>::new().await else {
        return;
    };
    let Some(server) = MariaDb::with(&["--max-allowed-packet=131072"]) else {
        return;
    };
    let mut options = (*world.pool.connect_options()).clone();
    options = options.port(server.port());
    let pool = sqlx::MySqlPool::connect_lazy_with(options);
    let mut connection = pool.acquire().await.expect("a connection");
    let made = format!(
        "create table {} (name varchar(64) not null, note varchar(64) not null, primary key (name))",
        world.effects
    );
    MySql::run(&mut connection, made).await.expect("a table");
    let store = MySqlStore::builder()
        .migrate(true)
        .largest_response(64 << 10)
        .table(world.records.clone())
        .connect(&server.url())
        .await;
    let store = AnyStore::new(store.expect("the store opens"));
    let app = App::over(world, store, Policy::new(), Control::default());
    let first = app.write("a", "sizeable").await;
    assert_eq!(first.status, 200);
    app.write("a", "sizeable")
        .await
        .assert_problem(409, "response_not_stored");
    let count = format!("select count(*) from {}", app.world.effects);
    let effects = MySql::number(&pool, count).await.expect("a count");
    assert_eq!((effects, app.control.runs()), (1, 1));
}

/// Others would not see what is committed to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_committed_to_a_file_that_was_replaced() {
    let Some(world) = World::<Sqlite>::new().await else {
        return;
    };
    let file = world.pool.connect_options().get_filename().to_owned();
    let app = Arc::new(App::new(world));
    let first = app.in_task("a", "wait");
    app.control.until_runs(1).await;
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).expect("it is moved");
    app.control.open(1);
    let answer = first.await.expect("an answer");
    answer.assert_problem(503, "store_unavailable");
    std::fs::rename(&aside, &file).expect("it is back");
    assert_eq!(app.world.effects().await, 0);
    let again = loop {
        let again = app.write("a", "ok").await;
        if again.status == 200 {
            break again;
        }
        assert!(matches!(again.status, 409 | 503), "{again:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    again.assert(200, "written 2", false);
    assert_eq!(app.world.effects().await, 1);
}
