//! What a pair of acquire and completion costs the server: updates that touch no index, and the log that they write.

use idempotent_runtime::{
    StoreKey,
    store::{Outcome, Store as _, conformance::response, sql::postgres::PostgresStore},
};
use sqlx::{AssertSqlSafe, Executor as _, PgPool, postgres::PgPoolOptions};

use super::new_table;
use crate::{
    servers::{not_tested, postgres::Postgres},
    toolbox::{execute, new_claim},
};

/// Enough that a vacuum or a checkpoint beside them does not count.
const PAIRS: u32 = 2_000;

/// What the pairs of one version of the table cost.
#[derive(Debug)]
struct Cost {
    updates: i64,
    hot: i64,
    wal_bytes: i64,
    index_bytes: i64,
}

async fn number(pool: &PgPool, query: &str) -> i64 {
    let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
    query.fetch_one(pool).await.expect("a number")
}

/// Sends the pairs, on the one connection of the pool, which therefore has all statistics.
async fn measured(pool: &PgPool, table: &str, pairs: impl Future<Output = ()>) -> Cost {
    pool.execute("checkpoint").await.expect("a checkpoint");
    let wal = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
    let before = number(pool, wal).await;
    pairs.await;
    let wal_bytes = number(pool, wal).await - before;
    pool.execute("select pg_stat_force_next_flush()")
        .await
        .expect("statistics");
    let column = |column: &str| {
        format!(
            "select coalesce({column}, 0)::bigint from pg_stat_user_tables where relname = '{table}'"
        )
    };
    Cost {
        updates: number(pool, &column("n_tup_upd")).await,
        hot: number(pool, &column("n_tup_hot_upd")).await,
        wal_bytes,
        index_bytes: number(pool, &format!("select pg_indexes_size('{table}')")).await,
    }
}

fn key(n: u32) -> StoreKey {
    // Spread, as digests are.
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
    StoreKey::from_bytes(bytes)
}

#[tokio::test]
async fn completions_touch_no_index_and_write_less_than_in_version_1() {
    let Some(server) = Postgres::with(&["autovacuum=off"]) else {
        return;
    };
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&server.url()).await.unwrap();
    if number(
        &pool,
        "select current_setting('server_version_num')::bigint",
    )
    .await
        < 150_000
    {
        return not_tested("PostgreSQL before 15 does not show its statistics at once");
    }
    let outcome = Outcome::Response(response(201, &[], &[b'x'; 200]));
    let (old, new) = (new_table(), new_table());
    let statement = |file: &str| {
        let lines = file
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"));
        let text = lines.collect::<Vec<_>>().join("\n");
        text.replace("{table}", &old.to_string())
            .replace("{index}", &format!("{old}_expiry"))
    };
    let schema = statement(include_str!("../sql/version_1/postgres/schema.sql"));
    pool.execute(AssertSqlSafe(schema)).await.unwrap();
    let acquire = statement(include_str!("../sql/version_1/postgres/claim.sql"));
    let complete = statement(include_str!("../sql/version_1/postgres/complete.sql"));
    let Outcome::Response(stored) = &outcome else {
        unreachable!("a response")
    };
    let before = measured(&pool, &old.to_string(), async {
        for n in 0..PAIRS {
            let claim = new_claim(key(n));
            let acquired = sqlx::query(AssertSqlSafe(acquire.clone()))
                .bind(&claim.key.as_bytes()[..])
                .bind(&claim.fingerprint.as_bytes()[..])
                .bind(&claim.token.as_bytes()[..])
                .bind(10_000_000_i64)
                .bind(100_000_000_i64)
                .bind(None::<&[u8]>)
                .bind(None::<&[u8]>)
                .fetch_all(&pool);
            acquired.await.unwrap();
            let completed = sqlx::query(AssertSqlSafe(complete.clone()))
                .bind(&claim.key.as_bytes()[..])
                .bind(&claim.token.as_bytes()[..])
                .bind(1_i16)
                .bind(&stored.as_bytes()[..])
                .bind(100_000_000_i64)
                .execute(&pool);
            assert_eq!(completed.await.unwrap().rows_affected(), 1);
        }
    })
    .await;
    let store = PostgresStore::builder()
        .table(new.clone())
        .from_pool(pool.clone());
    store.migrate().await.unwrap();
    let after = measured(
        &pool,
        &new.to_string(),
        Box::pin(async {
            for n in 0..PAIRS {
                execute(&store, &new_claim(key(n)), &outcome).await;
            }
        }),
    )
    .await;
    println!("{PAIRS} pairs in version 1: {before:?}\n{PAIRS} pairs in version 2: {after:?}");
    assert_eq!(
        (after.updates, after.hot),
        (PAIRS.into(), PAIRS.into()),
        "{after:?}"
    );
    assert_eq!(
        (before.updates, before.hot),
        (PAIRS.into(), 0),
        "{before:?}"
    );
    assert!(after.wal_bytes < before.wal_bytes, "{before:?} {after:?}");
    assert!(
        after.index_bytes < before.index_bytes,
        "{before:?} {after:?}"
    );
}

/// The variant that the documentation prints.
#[tokio::test]
async fn the_partitioned_table_serves_and_is_purged_partition_by_partition() {
    let Some(server) = Postgres::with(&[]) else {
        return;
    };
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let sql = include_str!("../../../idempotent-runtime/src/store/sql/postgres/partitioned.sql");
    pool.execute(sql).await.unwrap();
    let store = PostgresStore::builder().migrate(true);
    let store = store.connect(&server.url()).await;
    let store = store.expect("the table is known");
    let outcome = Outcome::Response(response(201, &[], b"done"));
    for n in 0..100 {
        execute(&store, &new_claim(key(n)), &outcome).await;
    }
    let half = "update idempotency_records set expires_at = now() - interval '1 hour', \
                purge_at = now() - interval '1 hour' where get_byte(store_key, 0) < 128";
    let expired = pool.execute(half).await.unwrap().rows_affected();
    assert!((20..80).contains(&expired), "{expired}");
    assert_eq!(store.purge_expired(1_000).await.unwrap() as u64, expired);
    let left = number(&pool, "select count(*) from idempotency_records").await;
    assert_eq!(left.unsigned_abs(), 100 - expired);
    let beside = "select count(*) from pg_tables where tablename in ('idempotency_records_audit', 'idempotency_records_outbox')";
    assert_eq!(number(&pool, beside).await, 2);
}
