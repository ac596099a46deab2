//! The variant of the table in partitions, which the documentation prints.

use idempotent_runtime::{
    StoreKey,
    store::{Outcome, Store as _, conformance::response, sql::mysql::MySqlStore},
};
use sqlx::{AssertSqlSafe, Executor as _, MySqlPool};

use super::new_table;
use crate::{
    servers::mariadb::MariaDb,
    toolbox::{execute, new_claim},
};

/// Of 51 keys in a row the first bytes are spread over all values.
fn key(n: u8) -> StoreKey {
    let mut bytes = [n; 32];
    bytes[0] = n * 5;
    StoreKey::from_bytes(bytes)
}

#[tokio::test]
async fn the_partitioned_table_serves_and_is_purged_beside_those_of_migrate() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let table = new_table();
    let pool = MySqlPool::connect(&server.url()).await.unwrap();
    let sql = include_str!("../../../idempotent-runtime/src/store/sql/mysql/partitioned.sql")
        .replace("idempotency_records", &table.to_string());
    pool.execute(AssertSqlSafe(sql)).await.unwrap();
    let store = MySqlStore::builder()
        .table(table.clone())
        .migrate(true)
        .connect(&server.url())
        .await
        .expect("the table is known");
    let outcome = Outcome::Response(response(201, &[], b"done"));
    for n in 0..50 {
        execute(&store, &new_claim(key(n)), &outcome).await;
    }
    let half = format!(
        "update {table} set expires_at = utc_timestamp(6) - interval 1 hour, \
         purge_at = utc_timestamp(6) - interval 1 hour where ord(store_key) < 128"
    );
    let expired = pool
        .execute(AssertSqlSafe(half))
        .await
        .unwrap()
        .rows_affected();
    assert!((5..45).contains(&expired), "{expired}");
    assert_eq!(store.purge_expired(1_000).await.unwrap() as u64, expired);
    let number = async |what: String| -> i64 {
        let asked = sqlx::query_scalar(AssertSqlSafe(what)).fetch_one(&pool);
        asked.await.unwrap()
    };
    let left = number(format!("select count(*) from {table}")).await;
    assert_eq!(left.unsigned_abs(), 50 - expired);
    let beside = "select count(*) from information_schema.tables where table_schema = database() and table_name in";
    let beside = number(format!("{beside} ('{table}_audit', '{table}_outbox')")).await;
    assert_eq!(beside, 2);
}
