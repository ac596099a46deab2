//! What lies behind a purge, where it is not looked for with each batch.

use std::time::Duration;

use idempotent_runtime::store::{Store as _, StoreErrorKind, sql::postgres::PostgresStore};
use sqlx::{Executor as _, PgPool};

use super::purge::expired;
use crate::servers::postgres::Postgres;

/// Writes one more record that expired this long ago.
async fn expired_ago(pool: &PgPool, table: &str, hours: u8) {
    let written = format!(
        "insert into {table} select sha256(gen_random_uuid()::text::bytea), sha256(''), decode(repeat('07', 16), 'hex'), \
         1, 1, now(), clock_timestamp() - {hours} * interval '1 hour', null, null"
    );
    pool.execute(&*written).await.unwrap();
}

/// Whenever somebody deletes what expired more than an hour ago, this happens.
async fn at_deletion(pool: &PgPool, table: &str, what: &str) {
    let statements = format!(
        "create function {table}_deleted() returns trigger language plpgsql as \
         $$ begin {what}; return old; end $$; \
         create trigger deleted before delete on {table} for each row \
         when (old.expires_at < clock_timestamp() - interval '90 minutes') execute function {table}_deleted()"
    );
    pool.execute(&*statements).await.unwrap();
}

/// All that the purge had to pass over is gone after some minutes.
async fn found_in_the_end(store: &PostgresStore, records: usize) {
    assert_eq!(store.purge_expired(3).await.unwrap(), 0, "it rests");
    // Nothing is on its way, so that only the store's own clock moves.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(301)).await;
    tokio::time::resume();
    assert_eq!(store.purge_expired(3).await.unwrap(), records);
}

/// What expires from now on is purged, and what was passed over as soon as it can be.
async fn goes_on_without_it(pool: &PgPool, store: &PostgresStore, table: &str) {
    for _ in 0..2 {
        expired_ago(pool, table, 0).await;
        assert_eq!(store.purge_expired(2).await.unwrap(), 1, "it goes on");
    }
    let mend = format!("drop trigger deleted on {table}");
    pool.execute(&*mend).await.unwrap();
    found_in_the_end(store, 1).await;
}

/// As when millions of records were deleted, and the table is not vacuumed.
#[tokio::test]
async fn a_look_that_fails_takes_no_count_with_it_and_stops_no_purge() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 5).await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    expired_ago(&pool, &table, 2).await;
    at_deletion(
        &pool,
        &table,
        "raise query_canceled using message = 'statement timeout'",
    )
    .await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    assert_eq!(store.purge_expired(2).await.unwrap(), 1, "the fifth");
    goes_on_without_it(&pool, &store, &table).await;
}

/// As in a process that starts while somebody keeps an old snapshot of the database, so that it cannot clean up.
#[tokio::test]
async fn a_first_batch_that_takes_too_long_does_not_stop_those_after_it() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 0).await;
    expired_ago(&pool, &table, 2).await;
    at_deletion(
        &pool,
        &table,
        "raise query_canceled using message = 'statement timeout'",
    )
    .await;
    let error = store.purge_expired(2).await.expect_err("too long");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(store.purge_expired(2).await.unwrap(), 0, "in the present");
    goes_on_without_it(&pool, &store, &table).await;
}

/// As after a deadlock: the next look need not wait.
#[tokio::test]
async fn a_look_that_fails_for_another_reason_is_repeated_with_the_next_batch() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 3).await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    expired_ago(&pool, &table, 2).await;
    at_deletion(&pool, &table, "raise deadlock_detected").await;
    assert_eq!(
        store.purge_expired(3).await.unwrap(),
        1,
        "not the early one"
    );
    let mend = format!("drop trigger deleted on {table}");
    pool.execute(&*mend).await.unwrap();
    assert_eq!(store.purge_expired(3).await.unwrap(), 1, "the early one");
}

#[tokio::test]
async fn a_look_that_takes_long_is_not_repeated_with_each_batch() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 3).await;
    at_deletion(&pool, &table, "perform pg_sleep(0.6)").await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    expired_ago(&pool, &table, 2).await;
    assert_eq!(store.purge_expired(3).await.unwrap(), 2, "a slow look");
    expired_ago(&pool, &table, 2).await;
    expired_ago(&pool, &table, 2).await;
    found_in_the_end(&store, 2).await;
}
