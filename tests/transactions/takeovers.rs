//! Executions whose lease lapsed: the next one executes, and whoever comes late commits nothing.

use std::{sync::Arc, time::Duration};

use idempotent_runtime::Policy;

use crate::{
    app::{App, Control},
    database::{TestDatabase, World, on_each_database},
};

on_each_database! {
    a_crashed_execution_is_executed_again,
    what_a_plain_execution_left_in_flight_is_not,
    a_duplicate_in_the_same_process_waits_for_the_outcome,
}

const LEASE: Duration = Duration::from_millis(500);

/// A record in flight whose process is gone, as of a handler with or without a transaction.
async fn crashed<Db: TestDatabase>(app: &Arc<App<Db>>) {
    let crashing = app.in_task("a", "wait");
    // Not when there is a record: a shutdown gives back a claim under which no handler has started.
    app.control.until_runs(1).await;
    // Its engine renews no more, and its transaction ends with its connection.
    app.engine.shutdown(Duration::ZERO).await;
    crashing.abort();
}

async fn a_crashed_execution_is_executed_again<Db: TestDatabase>(world: World<Db>) {
    let control = Control::default();
    let policy = Policy::new().lease(LEASE);
    let first = App::over(
        world.clone(),
        world.store.clone(),
        policy.clone(),
        control.clone(),
    );
    let first = Arc::new(first);
    let second = App::over(
        world.clone(),
        world.store.clone(),
        policy,
        Control::default(),
    );
    crashed(&first).await;
    let taken_over = second.write("a", "ok");
    let (answer, ()) = tokio::join!(taken_over, async {
        // The first handler goes on, as one that was only slow.
        tokio::time::sleep(Duration::from_millis(300)).await;
        control.open(1);
    });
    // Whichever of the two was first: one row, and one answer.
    assert!(answer.status < 400, "{answer:?}");
    let again = second.write("a", "ok").await;
    assert_eq!(
        (again.status, &again.text, again.replayed),
        (200, &answer.text, true)
    );
    assert_eq!((world.effects().await, world.completed().await), (1, 1));
}

async fn what_a_plain_execution_left_in_flight_is_not<Db: TestDatabase>(world: World<Db>) {
    let policy = Policy::new().lease(LEASE);
    let old = Arc::new(App::plain(world.clone(), policy.clone()));
    crashed(&old).await;
    let new = App::with(world.clone(), policy);
    tokio::time::sleep(LEASE).await;
    new.write("a", "wait")
        .await
        .assert_problem(409, "outcome_unknown");
    assert_eq!((world.effects().await, new.control.runs()), (0, 0));
}

async fn a_duplicate_in_the_same_process_waits_for_the_outcome<Db: TestDatabase>(world: World<Db>) {
    let app = Arc::new(App::new(world));
    let first = app.in_task("a", "wait");
    app.control.until_runs(1).await;
    let second = app.in_task("a", "wait");
    app.control.open(1);
    first
        .await
        .expect("an answer")
        .assert(200, "written 1", false);
    second
        .await
        .expect("an answer")
        .assert(200, "written 1", true);
    assert_eq!(app.world.effects().await, 1);
}
