//! Handlers that end, keep or lose their transaction: a failure is stored at once, and nothing is released.

use idempotent_runtime::{Idempotency, Transaction};
use sqlx::{MySql, Postgres, Sqlite};

use crate::{
    app::App,
    database::{TestDatabase, World, on_each_database},
};

on_each_database! {
    a_store_of_the_database_has_transactions,
    a_commit_of_the_handlers_own_is_found,
    a_rollback_of_the_handlers_own_is_found,
    another_transaction_of_the_handlers_own_is_found,
    a_savepoint_left_open_is_found,
    a_transaction_kept_beyond_the_handler_is_found,
    a_transaction_kept_and_never_used_is_found,
    a_connection_swapped_under_the_handler_is_found,
}

/// What `require_transactions` asks for.
async fn a_store_of_the_database_has_transactions<Db: TestDatabase>(world: World<Db>) {
    let builder = Idempotency::builder().store(world.store.clone());
    builder.require_transactions().build().expect("an engine");
}

/// The failure is stored, and the handler does not run again.
async fn fails_closed<Db: TestDatabase>(app: &App<Db>, act: &str) {
    app.write("a", act)
        .await
        .assert_problem(500, "transaction_failed");
    let again = app.write("a", act).await;
    again.assert_problem(500, "transaction_failed");
    assert_eq!((again.replayed, app.control.runs()), (true, 1));
}

async fn a_commit_of_the_handlers_own_is_found<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    fails_closed(&app, "commit").await;
    assert_eq!(
        app.world.effects().await,
        1,
        "that is what may have happened"
    );
    app.write("b", "ok").await.assert(200, "written 2", false);
}

async fn a_rollback_of_the_handlers_own_is_found<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    fails_closed(&app, "rollback").await;
    assert_eq!(app.world.effects().await, 0);
    app.write("b", "ok").await.assert(200, "written 2", false);
}

async fn another_transaction_of_the_handlers_own_is_found<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    fails_closed(&app, "begin-again").await;
    app.write("b", "ok").await.assert(200, "written 2", false);
}

async fn a_savepoint_left_open_is_found<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    fails_closed(&app, "forget-savepoint").await;
    assert_eq!(app.world.effects().await, 0);
    app.write("b", "ok").await.assert(200, "written 2", false);
}

async fn a_transaction_kept_beyond_the_handler_is_found<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    // SQLite: the failure can be stored only when the file is free again.
    let kept = app.write("a", "keep");
    let (kept, ()) = tokio::join!(kept, async {
        app.control.until_runs(1).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        drop(app.control.take_kept());
    });
    kept.assert_problem(500, "transaction_failed");
    app.write("a", "keep")
        .await
        .assert_problem(500, "transaction_failed");
    assert_eq!((app.world.effects().await, app.control.runs()), (0, 1));
    app.write("b", "ok").await.assert(200, "written 2", false);
}

/// A task that the handler has started may have meant to use it. Nothing is committed, and it says why when it is used.
async fn a_transaction_kept_and_never_used_is_found<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    fails_closed(&app, "keep-unused").await;
    for kept in app.control.take_kept() {
        let mut tx = kept.downcast::<Transaction<Db>>().expect("a transaction");
        let used = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: &mut Db::Connection = &mut tx;
        }));
        let why = used.expect_err("it has ended");
        let why = why.downcast_ref::<String>().expect("a text");
        assert!(why.contains("the handler has returned"), "{why}");
    }
    assert_eq!(app.world.effects().await, 0);
    app.write("b", "ok").await.assert(200, "written 2", false);
}

/// Nobody gets that connection as a transaction of the store's.
async fn a_connection_swapped_under_the_handler_is_found<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    fails_closed(&app, "swap").await;
    assert_eq!(app.world.effects().await, 0);
    app.write("b", "ok").await.assert(200, "written 2", false);
    // A response that commits nothing is the handler's answer all the same.
    app.write("c", "swap-status")
        .await
        .assert(402, "written 3", false);
    for name in ["d", "e"] {
        assert_eq!(app.write(name, "ok").await.status, 200);
    }
    assert_eq!(app.world.effects().await, 3);
}

/// After an error PostgreSQL commits nothing any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_the_handler_swallowed_rolls_back_in_postgres() {
    let Some(world) = World::<Postgres>::new().await else {
        return;
    };
    let app = App::new(world);
    fails_closed(&app, "swallow").await;
    assert_eq!(app.world.effects().await, 0);
    app.write("b", "ok").await.assert(200, "written 2", false);
}

/// In the others, only the statement is undone, and the handler may go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_a_statement_is_the_handlers_business_elsewhere() {
    async fn commits<Db: TestDatabase>(world: Option<World<Db>>) {
        let Some(world) = world else { return };
        let app = App::new(world);
        app.write("a", "swallow")
            .await
            .assert(200, "written 1", false);
        assert_eq!(app.world.effects().await, 1);
    }
    commits(World::<Sqlite>::new().await).await;
    commits(World::<MySql>::new().await).await;
}

/// Which commits implicitly there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_schema_is_found_in_mysql() {
    let Some(world) = World::<MySql>::new().await else {
        return;
    };
    let app = App::new(world);
    fails_closed(&app, "ddl").await;
    app.write("b", "ok").await.assert(200, "written 2", false);
}

/// The rows are there, so the key is not free. MySQL and SQLite cannot tell a COMMIT from a rollback of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_the_handlers_own_releases_nothing() {
    let Some(world) = World::<Postgres>::new().await else {
        return;
    };
    let app = App::new(world);
    fails_closed(&app, "commit-and-release").await;
    assert_eq!(app.world.effects().await, 1);
    // A transaction that has failed did not commit.
    for runs in 2..=3 {
        let answer = app.write("b", "error-and-release").await;
        answer.assert(429, "later", false);
        assert_eq!(app.control.runs(), runs);
    }
    assert_eq!(app.world.effects().await, 1);
}
