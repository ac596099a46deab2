//! How a purge continues in a table with many expired records.

use idempotent_runtime::store::{Store as _, sql::postgres::PostgresStore};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgPool, postgres::PgPoolOptions};

use super::{PostgresHarness, new_table};
use crate::servers::{not_tested, postgres::Postgres};

/// A table with so many expired records, in the order of their expiry, and the one connection to it.
pub(super) async fn expired(server: &Postgres, records: u32) -> (PgPool, PostgresStore, String) {
    let table = new_table();
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&server.url()).await.unwrap();
    let store = PostgresStore::builder()
        .table(table.clone())
        .from_pool(pool.clone());
    store.migrate().await.unwrap();
    let fill = format!(
        "insert into {table} (store_key, fingerprint, token, attempt, state, lease_until, expires_at, purge_at) \
         select sha256(n::text::bytea), sha256(''), decode(repeat('07', 16), 'hex'), 1, 1, \
         expired, expired, expired from (select n, now() - interval '1 hour' - ({records} - n) * interval '1 second' as expired \
         from generate_series(1, {records}) as n) as past"
    );
    pool.execute(AssertSqlSafe(fill)).await.unwrap();
    (pool, store, table.to_string())
}

/// Deleted records stay in the index until a vacuum, and must not be read again with each batch.
#[tokio::test]
async fn a_purge_does_not_read_deleted_records_again() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let version = sqlx::query_scalar("select current_setting('server_version_num')::int");
    let version: i32 = version
        .fetch_one(&mut PostgresHarness::connection().await)
        .await
        .unwrap();
    if version < 150_000 {
        return not_tested(&format!(
            "PostgreSQL before 15 does not show its statistics at once, and this is {version}"
        ));
    }
    let (pool, store, table) = expired(server, 20_000).await;
    let unvacuumed = format!("alter table {table} set (autovacuum_enabled = off)");
    pool.execute(AssertSqlSafe(unvacuumed)).await.unwrap();
    let mut read = 0;
    let mut tenths = Vec::new();
    for _ in 0..10 {
        for _ in 0..20 {
            assert_eq!(store.purge_expired(100).await.unwrap(), 100);
        }
        pool.execute("select pg_stat_force_next_flush()")
            .await
            .unwrap();
        let blocks = "select (idx_blks_hit + idx_blks_read)::bigint from pg_statio_user_indexes \
                      where relname = $1 and indexrelname not like '%pkey'";
        let blocks = sqlx::query_scalar(blocks).bind(&table);
        let total: i64 = blocks.fetch_one(&pool).await.unwrap();
        tenths.push(total - read);
        read = total;
    }
    // The first tenth includes the reads of filling the table. A purge that reads deleted records again would read more
    // and more: in the last tenth five times as much as in the second.
    assert!(tenths[1] > 0, "{tenths:?}");
    assert!(tenths[9] <= tenths[1] * 2, "{tenths:?}");
    assert_eq!(store.purge_expired(10).await.unwrap(), 0);
}

#[tokio::test]
async fn records_that_a_purge_skipped_are_purged_later() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 4).await;
    let mut user = PostgresHarness::connection().await;
    let mut transaction = user.begin().await.unwrap();
    let first = format!("select 1 from {table} order by purge_at limit 1 for update");
    transaction.execute(AssertSqlSafe(first)).await.unwrap();

    assert_eq!(
        store.purge_expired(2).await.unwrap(),
        2,
        "all but the locked one"
    );
    transaction.commit().await.unwrap();
    assert_eq!(
        store.purge_expired(2).await.unwrap(),
        2,
        "the last one and the locked one"
    );
    let left = format!("select count(*) from {table}");
    let left: i64 = sqlx::query_scalar(AssertSqlSafe(left))
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(store.purge_expired(2).await.unwrap(), 0);
}

/// Such a record is inserted later and expired earlier than the last deleted one, as after a clock that was wrong.
#[tokio::test]
async fn records_before_the_cursor_are_found() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 3).await;
    assert_eq!(store.purge_expired(3).await.unwrap(), 3);
    let earlier = format!(
        "insert into {table} (store_key, fingerprint, token, attempt, state, lease_until, expires_at, purge_at) \
         select sha256('earlier'), sha256(''), decode(repeat('07', 16), 'hex'), 1, 1, now(), \
         now() - interval '2 hours', now() - interval '2 hours'"
    );
    pool.execute(AssertSqlSafe(earlier)).await.unwrap();
    assert_eq!(store.purge_expired(3).await.unwrap(), 1);
}
