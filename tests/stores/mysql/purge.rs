//! How a purge finds its way through a table of which much has expired.

use idempotent_runtime::store::{Store as _, StoreErrorKind, sql::mysql::MySqlStore};
use sqlx::{Connection as _, Executor as _, MySqlConnection, MySqlPool, mysql::MySqlPoolOptions};

use super::{MariaDbHarness, new_table};
use crate::servers::mariadb::MariaDb;

/// A table of so many records, of which the first expired first, and the one connection to it.
async fn expired(server: &MariaDb, records: u32) -> (MySqlPool, MySqlStore, String) {
    let table = new_table();
    // Not among the server's own tables, on which there are no triggers.
    MariaDbHarness::set(server, "create database if not exists purged").await;
    let url = server.url().replace("/mysql?", "/purged?");
    let pool = MySqlPoolOptions::new().max_connections(1);
    let pool = pool.connect(&url).await.unwrap();
    let store = MySqlStore::builder()
        .table(table.clone())
        .from_pool(pool.clone());
    store.migrate().await.unwrap();
    let fill = format!(
        "insert into {table} select unhex(sha2(seq, 256)), unhex(sha2('', 256)), unhex(md5('')), 1, 1, expired, expired, null, null \
         from (select seq, utc_timestamp(6) - interval 1 hour - interval ({records} - seq) second as expired \
         from seq_1_to_{records}) as past"
    );
    pool.execute(&*fill).await.unwrap();
    (pool, store, table.to_string())
}

/// Writes one more record that expired two hours ago.
async fn expired_earlier(pool: &MySqlPool, table: &str) {
    let written = format!(
        "insert into {table} values (unhex(sha2(uuid(), 256)), unhex(sha2('', 256)), unhex(md5('')), 1, 1, \
         utc_timestamp(6), utc_timestamp(6) - interval 2 hour, null, null)"
    );
    pool.execute(&*written).await.unwrap();
}

/// `InnoDB` keeps what was deleted in the index for a while, where each batch would pass it again. No number of the server
/// tells how much a batch passes; what it does not see shows where it began.
#[tokio::test]
async fn a_purge_goes_on_where_it_ended_and_begins_anew_at_the_end() {
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
    let early: i64 = sqlx::query_scalar(&early).fetch_one(&pool).await.unwrap();
    assert_eq!(early, 1, "it lies behind");
    assert_eq!(store.purge_expired(4).await.unwrap(), 3, "two and that one");
    assert_eq!(store.purge_expired(4).await.unwrap(), 0);
}

#[tokio::test]
async fn what_a_purge_had_to_pass_over_has_its_turn_later() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let (_pool, store, table) = expired(server, 4).await;
    let mut user = MySqlConnection::connect(&server.url()).await.unwrap();
    let mut transaction = user.begin().await.unwrap();
    let first = format!("select 1 from purged.{table} order by expires_at limit 1 for update");
    transaction.execute(&*first).await.unwrap();

    assert_eq!(store.purge_expired(2).await.unwrap(), 2, "not the first");
    transaction.commit().await.unwrap();
    let rest = "the last and the first";
    assert_eq!(store.purge_expired(2).await.unwrap(), 2, "{rest}");
    assert_eq!(store.purge_expired(2).await.unwrap(), 0);
}

/// As in a process that starts while somebody keeps an old snapshot of the database, so that it cannot clean up.
#[tokio::test]
async fn a_first_batch_that_takes_too_long_does_not_stop_those_after_it() {
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
        pool.execute(&*slow).await.unwrap();
        let error = store.purge_expired(2).await.expect_err("too long");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{number}");
        assert_eq!(store.purge_expired(2).await.unwrap(), 0, "in the present");
        let now = format!(
            "insert into {table} values (unhex(sha2('now', 256)), unhex(sha2('', 256)), unhex(md5('')), 1, 1, \
             utc_timestamp(6), utc_timestamp(6), null, null)"
        );
        pool.execute(&*now).await.unwrap();
        assert_eq!(store.purge_expired(2).await.unwrap(), 1, "it goes on");
    }
}
