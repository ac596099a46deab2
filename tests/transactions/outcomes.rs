//! Which responses commit, and what is replayed.

use crate::{
    app::App,
    database::{TestDatabase, World, on_each_database},
};

on_each_database! {
    a_success_commits_row_and_record,
    an_error_rolls_back_and_is_an_outcome,
    a_status_that_refuses_before_processing_rolls_back_and_releases,
    the_handlers_own_release_rolls_back_and_releases,
    a_panic_rolls_back_and_is_an_outcome,
    rollback_only_stores_the_response_and_no_row,
    a_rolled_back_savepoint_leaves_the_rest,
    a_dropped_savepoint_is_rolled_back,
    a_streamed_response_is_collected_and_replayed,
    a_stream_that_reads_from_the_transaction_commits_when_it_has_ended,
    a_response_too_large_commits_and_is_not_replayed,
    a_body_that_breaks_off_rolls_back,
    a_request_without_a_key_is_refused,
}

async fn a_success_commits_row_and_record<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    app.write("a", "ok").await.assert(200, "written 1", false);
    app.write("a", "ok").await.assert(200, "written 1", true);
    app.write("b", "redirect")
        .await
        .assert(303, "written 2", false);
    app.write("b", "redirect")
        .await
        .assert(303, "written 2", true);
    assert_eq!(
        (app.world.effects().await, app.world.completed().await),
        (2, 2)
    );
}

async fn an_error_rolls_back_and_is_an_outcome<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    app.write("a", "status")
        .await
        .assert(402, "written 1", false);
    app.write("a", "status")
        .await
        .assert(402, "written 1", true);
    app.write("b", "server-error")
        .await
        .assert(502, "written 2", false);
    app.write("b", "server-error")
        .await
        .assert(502, "written 2", true);
    assert_eq!(
        (app.world.effects().await, app.world.completed().await),
        (0, 2)
    );
}

async fn a_status_that_refuses_before_processing_rolls_back_and_releases<Db: TestDatabase>(
    world: World<Db>,
) {
    let app = App::new(world);
    app.write("a", "too-many")
        .await
        .assert(429, "written 1", false);
    assert_eq!(
        (app.world.effects().await, app.world.completed().await),
        (0, 0)
    );
    app.write("a", "ok").await.assert(200, "written 2", false);
    assert_eq!(app.world.effects().await, 1);
}

async fn the_handlers_own_release_rolls_back_and_releases<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    app.write("a", "release")
        .await
        .assert(200, "written 1", false);
    assert_eq!(
        (app.world.effects().await, app.world.completed().await),
        (0, 0)
    );
    app.write("a", "ok").await.assert(200, "written 2", false);
}

async fn a_panic_rolls_back_and_is_an_outcome<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    let first = app.write("a", "panic").await;
    first.assert_problem(500, "handler_panicked");
    assert!(first.text.contains("rolled back"), "{first:?}");
    let again = app.write("a", "panic").await;
    assert_eq!((again.text, again.replayed), (first.text, true));
    assert_eq!((app.world.effects().await, app.control.runs()), (0, 1));
}

async fn rollback_only_stores_the_response_and_no_row<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    app.write("a", "rollback-only")
        .await
        .assert(200, "written 1", false);
    app.write("a", "rollback-only")
        .await
        .assert(200, "written 1", true);
    assert_eq!(app.world.effects().await, 0);
}

async fn a_rolled_back_savepoint_leaves_the_rest<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    app.write("a", "savepoint")
        .await
        .assert(200, "written 1", false);
    assert_eq!(app.world.effects().await, 2);
}

async fn a_dropped_savepoint_is_rolled_back<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    app.write("a", "dropped-savepoint")
        .await
        .assert(200, "written 1", false);
    assert_eq!(app.world.effects().await, 1);
}

async fn a_streamed_response_is_collected_and_replayed<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    app.write("a", "stream")
        .await
        .assert(200, "written 1 in pieces", false);
    app.write("a", "stream")
        .await
        .assert(200, "written 1 in pieces", true);
    assert_eq!(app.world.effects().await, 1);
}

async fn a_stream_that_reads_from_the_transaction_commits_when_it_has_ended<Db: TestDatabase>(
    world: World<Db>,
) {
    let app = App::new(world);
    app.write("a", "streams-tx")
        .await
        .assert(200, "written 1 in pieces", false);
    app.write("a", "streams-tx")
        .await
        .assert(200, "written 1 in pieces", true);
    assert_eq!(app.world.effects().await, 1);
}

async fn a_response_too_large_commits_and_is_not_replayed<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    let first = app.write("a", "large").await;
    assert_eq!(
        (first.status, first.text.len()),
        (200, "written 1 in pieces".len() + (2 << 20))
    );
    app.write("a", "large")
        .await
        .assert_problem(409, "response_not_stored");
    assert_eq!((app.world.effects().await, app.control.runs()), (1, 1));
}

async fn a_body_that_breaks_off_rolls_back<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    app.write("a", "broken")
        .await
        .assert_problem(500, "transaction_failed");
    let again = app.write("a", "broken").await;
    again.assert_problem(500, "transaction_failed");
    assert_eq!(
        (
            app.world.effects().await,
            app.control.runs(),
            again.replayed
        ),
        (0, 1, true)
    );
}

async fn a_request_without_a_key_is_refused<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world);
    let answer = app.without_a_key().await;
    answer.assert_problem(400, "missing_key");
    assert_eq!((app.world.effects().await, app.control.runs()), (0, 0));
}
