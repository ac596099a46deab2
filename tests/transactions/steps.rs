//! Steps of a handler that has a transaction.

use crate::{
    app::App,
    database::{TestDatabase, World, on_each_database},
};

on_each_database! {
    steps_outlive_a_transaction_that_was_rolled_back,
}

async fn steps_outlive_a_transaction_that_was_rolled_back<Db: TestDatabase>(world: World<Db>) {
    let app = App::new(world.clone());
    let first = app.write("a", "step-unknown").await;
    if <Db as sqlx::Database>::NAME == "SQLite" {
        // The transaction keeps the store out of the file: refused at once, not after its time-out.
        first.assert(504, "Unsupported", false);
        assert_eq!(world.effects().await, 0);
        return;
    }
    // Nothing of the first execution is committed, and its step is known to the second one.
    first.assert(504, "charged in run 1", false);
    assert_eq!((world.effects().await, world.completed().await), (0, 0));
    let second = app.write("a", "step").await;
    second.assert(200, "charged in run 1", false);
    assert_eq!((world.effects().await, app.control.runs()), (1, 2));
    app.write("a", "step")
        .await
        .assert(200, "charged in run 1", true);
}
