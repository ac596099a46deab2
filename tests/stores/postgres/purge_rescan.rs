//! The rescan of a purge: it finds expired records before the cursor, and not every batch repeats it.

use std::time::Duration;

use idempotent_runtime::store::{Store as _, StoreErrorKind, sql::postgres::PostgresStore};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};

use super::purge::expired;
use crate::servers::postgres::Postgres;

/// Inserts a record that expired this long ago.
async fn expired_ago(pool: &PgPool, table: &str, hours: u8) {
    let insert = format!(
        "insert into {table} (store_key, fingerprint, token, attempt, state, lease_until, expires_at, purge_at) select sha256(gen_random_uuid()::text::bytea), sha256(''), decode(repeat('07', 16), 'hex'), \
         1, 1, now(), past, past from (select clock_timestamp() - {hours} * interval '1 hour' as past) as times"
    );
    pool.execute(AssertSqlSafe(insert)).await.unwrap();
}

/// Makes each deletion of a record that expired more than an hour ago do this.
async fn at_deletion(pool: &PgPool, table: &str, statement: &str) {
    let trigger = format!(
        "create function {table}_deleted() returns trigger language plpgsql as \
         $$ begin {statement}; return old; end $$; \
         create trigger deleted before delete on {table} for each row \
         when (old.expires_at < clock_timestamp() - interval '90 minutes') execute function {table}_deleted()"
    );
    pool.execute(AssertSqlSafe(trigger)).await.unwrap();
}

/// What the server raises when a statement takes too long.
const TIME_OUT: &str = "raise query_canceled using message = 'statement timeout'";

async fn drop_trigger(pool: &PgPool, table: &str) {
    let statement = format!("drop trigger deleted on {table}");
    pool.execute(AssertSqlSafe(statement)).await.unwrap();
}

/// All records that the purge had to skip are deleted after some minutes.
async fn skipped_are_purged_later(store: &PostgresStore, records: usize) {
    assert_eq!(store.purge_expired(3).await.unwrap(), 0, "no rescan yet");
    // No request is on its way, so that only the store's own clock moves.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(301)).await;
    tokio::time::resume();
    assert_eq!(store.purge_expired(3).await.unwrap(), records);
}

/// New expired records are purged, and the skipped one as soon as it can be.
async fn continues_without_it(pool: &PgPool, store: &PostgresStore, table: &str) {
    for _ in 0..2 {
        expired_ago(pool, table, 0).await;
        assert_eq!(store.purge_expired(2).await.unwrap(), 1, "expired since");
    }
    drop_trigger(pool, table).await;
    skipped_are_purged_later(store, 1).await;
}

/// As when millions of records were deleted, and the table is not vacuumed.
#[tokio::test]
async fn a_rescan_that_times_out_loses_no_count_and_stops_no_purge() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 5).await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    expired_ago(&pool, &table, 2).await;
    at_deletion(&pool, &table, TIME_OUT).await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    assert_eq!(store.purge_expired(2).await.unwrap(), 1, "the fifth");
    continues_without_it(&pool, &store, &table).await;
}

/// As in a process that starts while an old snapshot keeps the server from removing deleted records.
#[tokio::test]
async fn a_first_batch_that_times_out_does_not_stop_the_next_ones() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 0).await;
    expired_ago(&pool, &table, 2).await;
    at_deletion(&pool, &table, TIME_OUT).await;
    let error = store.purge_expired(2).await.expect_err("it times out");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let next = store.purge_expired(2).await.unwrap();
    assert_eq!(next, 0, "from the present on");
    continues_without_it(&pool, &store, &table).await;
}

/// As after a deadlock: the next batch may succeed.
#[tokio::test]
async fn a_rescan_that_fails_otherwise_is_repeated_with_the_next_batch() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 3).await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    expired_ago(&pool, &table, 2).await;
    at_deletion(&pool, &table, "raise deadlock_detected").await;
    let purged = store.purge_expired(3).await.unwrap();
    assert_eq!(purged, 1, "not the early one");
    drop_trigger(&pool, &table).await;
    assert_eq!(store.purge_expired(3).await.unwrap(), 1, "the early one");
}

#[tokio::test]
async fn a_slow_rescan_is_not_repeated_with_each_batch() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 3).await;
    at_deletion(&pool, &table, "perform pg_sleep(0.6)").await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    expired_ago(&pool, &table, 2).await;
    assert_eq!(store.purge_expired(3).await.unwrap(), 2, "a slow rescan");
    expired_ago(&pool, &table, 2).await;
    expired_ago(&pool, &table, 2).await;
    skipped_are_purged_later(&store, 2).await;
}
