//! Duplicates that meet the locks of a transaction are in flight, and wait or get their conflict; other keys go on where the
//! database locks records and not its file.

use std::{sync::Arc, time::Duration};

use idempotent_runtime::Policy;
use sqlx::{MySql, Postgres, Sqlite};
use tokio::time::Instant;

use crate::{
    app::{Answer, App, Control},
    database::{TestDatabase, World, on_each_database},
};

on_each_database! {
    fifty_duplicates_in_another_process_finish,
    fifty_duplicates_in_another_process_that_do_not_wait_conflict,
    a_replay_and_a_read_go_on_beside_a_transaction,
}

/// Another process on the same records: no execution of the first one is known there.
async fn another_process<Db: TestDatabase>(world: &World<Db>, policy: Policy) -> Arc<App<Db>> {
    let store = Db::open(&world.url(), &world.records, 5).await;
    Arc::new(App::over(world.clone(), store, policy, Control::default()))
}

fn fifty<Db: TestDatabase>(app: &Arc<App<Db>>) -> Vec<tokio::task::JoinHandle<Answer>> {
    (0..50).map(|_| app.in_task("a", "ok")).collect()
}

/// On a pool of five.
async fn fifty_duplicates_in_another_process_finish<Db: TestDatabase>(world: World<Db>) {
    let first = Arc::new(App::new(world.clone()));
    let other = another_process(&world, Policy::new()).await;
    let executing = first.in_task("a", "wait");
    first.control.until_runs(1).await;
    let duplicates = fifty(&other);
    // Longer than the stores' own time-out: a duplicate that met the lock would have failed by then.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    first.control.open(1);
    executing
        .await
        .expect("an answer")
        .assert(200, "written 1", false);
    for duplicate in duplicates {
        duplicate
            .await
            .expect("an answer")
            .assert(200, "written 1", true);
    }
    assert_eq!((world.effects().await, other.control.runs()), (1, 0));
}

async fn fifty_duplicates_in_another_process_that_do_not_wait_conflict<Db: TestDatabase>(
    world: World<Db>,
) {
    let first = Arc::new(App::new(world.clone()));
    let other = another_process(&world, Policy::new().wait(false)).await;
    let executing = first.in_task("a", "wait");
    first.control.until_runs(1).await;
    for duplicate in fifty(&other) {
        let duplicate = duplicate.await.expect("an answer");
        duplicate.assert_problem(409, "conflict");
    }
    first.control.open(1);
    assert_eq!(executing.await.expect("an answer").status, 200);
    assert_eq!((world.effects().await, other.control.runs()), (1, 0));
}

/// In both processes; SQLite's file is locked meanwhile.
async fn a_replay_and_a_read_go_on_beside_a_transaction<Db: TestDatabase>(world: World<Db>) {
    let first = Arc::new(App::new(world.clone()));
    let other = another_process(&world, Policy::new()).await;
    first.write("b", "ok").await.assert(200, "written 1", false);
    let executing = first.in_task("a", "wait");
    first.control.until_runs(2).await;
    for app in [&first, &other] {
        let since = Instant::now();
        app.write("b", "ok").await.assert(200, "written 1", true);
        assert!(since.elapsed() < Duration::from_secs(1), "it waited");
    }
    assert_eq!(world.completed().await, 1);
    first.control.open(1);
    assert_eq!(executing.await.expect("an answer").status, 200);
}

/// What a process leaves that is stopped between completion and COMMIT: its record is locked, and its lease lapses.
async fn zombie<Db: TestDatabase>(world: Option<World<Db>>) {
    const LEASE: Duration = Duration::from_millis(400);
    let Some(world) = world else { return };
    let policy = Policy::new().lease(LEASE).wait(false);
    let first = Arc::new(App::with(world.clone(), policy.clone()));
    let other = another_process(&world, policy).await;
    let executing = first.in_task("a", "wait");
    first.control.until_runs(1).await;
    first.engine.shutdown(Duration::ZERO).await;
    let mut holder = world.pool.begin().await.expect("a transaction");
    let lock = format!("update {} set attempt = attempt", world.records);
    Db::run(&mut holder, lock).await.expect("it is locked");
    tokio::time::sleep(LEASE).await;
    let since = Instant::now();
    for duplicate in fifty(&other) {
        let duplicate = duplicate.await.expect("an answer");
        duplicate.assert_problem(409, "conflict");
    }
    assert!(since.elapsed() < Duration::from_secs(2), "they waited");
    assert_eq!(other.control.runs(), 0);
    holder.rollback().await.expect("it ends");
    executing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_of_a_process_that_is_stopped_before_its_commit_conflict() {
    Box::pin(zombie(World::<Postgres>::new().await)).await;
    Box::pin(zombie(World::<MySql>::new().await)).await;
}

/// The same in SQLite, where it is the file that is locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_conflict_while_somebody_keeps_the_file() {
    let Some(world) = World::<Sqlite>::new().await else {
        return;
    };
    let policy = Policy::new().lease(Duration::from_millis(400)).wait(false);
    let first = Arc::new(App::with(world.clone(), policy.clone()));
    let other = another_process(&world, policy).await;
    let executing = first.in_task("a", "wait");
    first.control.until_runs(1).await;
    // Its lease lapses, and nobody else can claim the key.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for duplicate in fifty(&other) {
        let duplicate = duplicate.await.expect("an answer");
        duplicate.assert_problem(409, "conflict");
    }
    first.control.open(1);
    executing
        .await
        .expect("an answer")
        .assert(200, "written 1", false);
    assert_eq!((world.effects().await, other.control.runs()), (1, 0));
}
