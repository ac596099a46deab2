//! How a purge continues in a table with many expired records.

use idempotent_runtime::store::{Store as _, StoreErrorKind, sql::mysql::MySqlStore};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, MySqlPool,
    mysql::MySqlPoolOptions,
};

use super::{new_table, run};
use crate::servers::mariadb::MariaDb;

/// A table with so many expired records, in the order of their expiry, and the one connection to it.
async fn expired(server: &MariaDb, records: u32) -> (MySqlPool, MySqlStore, String) {
    let table = new_table();
    // Not in the server's own database, whose tables may have no triggers.
    run(server, "create database if not exists purged").await;
    let url = server.url().replace("/mysql?", "/purged?");
    let pool = MySqlPoolOptions::new().max_connections(1);
    let pool = pool.connect(&url).await.unwrap();
    let store = MySqlStore::builder()
        .table(table.clone())
        .from_pool(pool.clone());
    store.migrate().await.unwrap();
    let fill = format!(
        "insert into {table} (store_key, fingerprint, token, attempt, state, lease_until, expires_at, purge_at) \
         select unhex(sha2(seq, 256)), unhex(sha2('', 256)), unhex(md5('')), 1, 1, expired, expired, expired \
         from (select seq, utc_timestamp(6) - interval 1 hour - interval ({records} - seq) second as expired \
         from seq_1_to_{records}) as past"
    );
    pool.execute(AssertSqlSafe(fill)).await.unwrap();
    (pool, store, table.to_string())
}

/// Inserts a record that expired two hours ago.
async fn expired_earlier(pool: &MySqlPool, table: &str) {
    let written = format!(
        "insert into {table} (store_key, fingerprint, token, attempt, state, lease_until, expires_at, purge_at) \
         values (unhex(sha2(uuid(), 256)), unhex(sha2('', 256)), unhex(md5('')), 1, 1, \
         utc_timestamp(6), utc_timestamp(6) - interval 2 hour, utc_timestamp(6) - interval 2 hour)"
    );
    pool.execute(AssertSqlSafe(written)).await.unwrap();
}

/// `InnoDB` keeps deleted records in the index for a while, and each batch would read them again. The server does not show
/// how much a batch reads; a record that a batch does not find shows where it began.
#[tokio::test]
async fn a_purge_continues_where_it_ended_and_starts_again_at_the_end() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let (pool, store, table) = expired(server, 6).await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    expired_earlier(&pool, &table).await;
    assert_eq!(store.purge_expired(2).await.unwrap(), 2);
    let early = format!(
        "select count(*) from {table} where expires_at < utc_timestamp(6) - interval 90 minute"
    );
    let early: i64 = sqlx::query_scalar(AssertSqlSafe(early))
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(early, 1, "it is before the cursor");
    assert_eq!(
        store.purge_expired(4).await.unwrap(),
        3,
        "two and the early one"
    );
    assert_eq!(store.purge_expired(4).await.unwrap(), 0);
}

#[tokio::test]
async fn records_that_a_purge_skipped_are_purged_later() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let (_pool, store, table) = expired(server, 4).await;
    let mut user = MySqlConnection::connect(&server.url()).await.unwrap();
    let mut transaction = user.begin().await.unwrap();
    let first = format!("select 1 from purged.{table} order by purge_at limit 1 for update");
    transaction.execute(AssertSqlSafe(first)).await.unwrap();

    assert_eq!(
        store.purge_expired(2).await.unwrap(),
        2,
        "all but the locked one"
    );
    transaction.commit().await.unwrap();
    let rest = "the last one and the locked one";
    assert_eq!(store.purge_expired(2).await.unwrap(), 2, "{rest}");
    assert_eq!(store.purge_expired(2).await.unwrap(), 0);
}

/// As in a process that starts while an old snapshot keeps the server from removing deleted records.
#[tokio::test]
async fn a_first_batch_that_times_out_does_not_stop_the_next_ones() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    // MariaDB's `max_statement_time`, and MySQL's `max_execution_time`.
    for number in [1969, 3024] {
        let (pool, store, table) = expired(server, 1).await;
        let slow = format!(
            "create trigger {table}_slow before delete on {table} for each row \
             if old.expires_at < utc_timestamp(6) - interval 30 minute then \
             signal sqlstate '70100' set mysql_errno = {number}, message_text = 'interrupted'; end if"
        );
        pool.execute(AssertSqlSafe(slow)).await.unwrap();
        let error = store.purge_expired(2).await.expect_err("it times out");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{number}");
        assert_eq!(
            store.purge_expired(2).await.unwrap(),
            0,
            "from the present on"
        );
        let now = format!(
            "insert into {table} (store_key, fingerprint, token, attempt, state, lease_until, expires_at, purge_at) \
         values (unhex(sha2('now', 256)), unhex(sha2('', 256)), unhex(md5('')), 1, 1, \
             utc_timestamp(6), utc_timestamp(6), utc_timestamp(6))"
        );
        pool.execute(AssertSqlSafe(now)).await.unwrap();
        assert_eq!(store.purge_expired(2).await.unwrap(), 1, "expired since");
    }
}
