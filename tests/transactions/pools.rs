//! Handlers that hold connections starve neither claims nor renewals.

use std::{sync::Arc, time::Duration};

use idempotent_runtime::Policy;
use sqlx::{MySql, Postgres};

use crate::{
    app::App,
    database::{TestDatabase, World},
};

/// Fifty duplicates of each of five requests, on five connections for transactions.
async fn fifty_duplicates_finish<Db: TestDatabase>(world: Option<World<Db>>) {
    let Some(world) = world else { return };
    let app = Arc::new(App::with(
        world,
        Policy::new().lease(Duration::from_millis(600)),
    ));
    let mut all = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        for _ in 0..50 {
            all.push(app.in_task(name, "wait"));
        }
    }
    app.control.until_runs(5).await;
    // Longer than the lease, which is renewed meanwhile.
    tokio::time::sleep(Duration::from_millis(400)).await;
    app.control.open(5);
    let mut executed = 0;
    for answer in all {
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        executed += u32::from(!answer.replayed);
    }
    assert_eq!((executed, app.control.runs()), (5, 5));
    assert_eq!(app.world.effects().await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_duplicates_finish_on_five_connections() {
    fifty_duplicates_finish(World::<Postgres>::new().await).await;
    fifty_duplicates_finish(World::<MySql>::new().await).await;
}

/// A request that finds no connection is refused, and its key stays free.
async fn without_a_connection<Db: TestDatabase>(world: Option<World<Db>>) {
    let Some(world) = world else { return };
    let app = Arc::new(App::new(world));
    let held: Vec<_> = ["a", "b", "c", "d", "e"]
        .map(|name| app.in_task(name, "wait"))
        .into();
    app.control.until_runs(5).await;
    app.write("f", "ok")
        .await
        .assert_problem(503, "store_unavailable");
    app.control.open(5);
    for held in held {
        assert_eq!(held.await.expect("an answer").status, 200);
    }
    app.write("f", "ok").await.assert(200, "written 6", false);
    assert_eq!(app.world.effects().await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_connection_is_refused_and_its_key_stays_free() {
    without_a_connection(World::<Postgres>::new().await).await;
    without_a_connection(World::<MySql>::new().await).await;
}
