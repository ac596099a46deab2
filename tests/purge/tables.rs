//! The tables that are purged, filled with SQL.

use std::time::{Duration, Instant};

use idempotent_runtime::store::sql::{
    mysql::MySqlStore, postgres::PostgresStore, sqlite::SqliteStore,
};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, SqliteConnection};

use crate::{
    CLIENTS,
    driver::{hex, stored_response},
    measure,
    servers::{Folder, mariadb::MariaDb, postgres::Postgres},
};

const COLUMNS: &str = "store_key, fingerprint, token, attempt, state, lease_until, expires_at, purge_at, trace_id, response";

pub(crate) async fn postgres(records: u64, most: Duration) -> Option<f64> {
    let server = Postgres::start()?;
    let builder = PostgresStore::builder()
        .migrate(true)
        .connections(CLIENTS as usize);
    let store = builder.connect(&server.url()).await.expect("a store");
    let statements = [
        "set maintenance_work_mem = '512MB'",
        // Created afterwards: digests are in no order, and creating an index is faster than updating it.
        "alter table idempotency_records drop constraint idempotency_records_pkey",
        &format!(
            "insert into idempotency_records ({COLUMNS}) select sha256(n::text::bytea), sha256('a request'), \
             '\\x{}', 1, 1, expired, expired, expired, null, '\\x{}' \
             from (select n, now() - interval '1 hour' - ({records} - n) * interval '100 microseconds' as expired \
             from generate_series(1, {records}) as n) as past",
            "07".repeat(16),
            hex(&stored_response())
        ),
        "alter table idempotency_records add primary key (store_key)",
        "vacuum analyze idempotency_records",
        "checkpoint",
    ];
    fill::<PgConnection>(&server.url(), &statements).await;
    measure(store, records, most).await
}

/// The table is larger than the server's memory for it, as that of a service that has run for long.
pub(crate) async fn mariadb(records: u64, most: Duration) -> Option<f64> {
    let server = MariaDb::with(&["--innodb-buffer-pool-size=1G", "--innodb-log-file-size=1G"])?;
    let builder = MySqlStore::builder()
        .migrate(true)
        .connections(CLIENTS as usize);
    let store = builder.connect(&server.url()).await.expect("a store");
    let statements = [
        "set sort_buffer_size = 1 << 28",
        // In the order of the primary key, in which the table is stored.
        &format!(
            "insert into idempotency_records ({COLUMNS}) select unhex(sha2(seq, 256)) as store_key, \
             unhex(sha2('a request', 256)), x'{}', 1, 1, utc_timestamp(6) - interval 1 hour, \
             utc_timestamp(6) - interval 1 hour - interval ({records} - seq) * 100 microsecond, \
             utc_timestamp(6) - interval 1 hour - interval ({records} - seq) * 100 microsecond, null, x'{}' \
             from seq_1_to_{records} order by store_key",
            "07".repeat(16),
            hex(&stored_response())
        ),
        "analyze table idempotency_records",
    ];
    fill::<MySqlConnection>(&server.url(), &statements).await;
    measure(store, records, most).await
}

pub(crate) async fn sqlite(records: u64, most: Duration) -> Option<f64> {
    let folder = Folder::new("purge");
    let url = format!("sqlite://{}", folder.path().join("records.db").display());
    let store = SqliteStore::connect(&url).await.expect("a store");
    let statements = [
        "pragma cache_size = -1000000",
        &format!(
            "with recursive past (n) as (select 1 union all select n + 1 from past where n < {records}) \
             insert into idempotency_records ({COLUMNS}) select randomblob(32), zeroblob(32), zeroblob(16), 1, 1, \
             unixepoch() * 1000000 - 3600000000, unixepoch() * 1000000 - 3600000000 - ({records} - n) * 100, \
             unixepoch() * 1000000 - 3600000000 - ({records} - n) * 100, null, \
             x'{}' from past",
            hex(&stored_response())
        ),
        "pragma wal_checkpoint(truncate)",
    ];
    fill::<SqliteConnection>(&url, &statements).await;
    measure(store, records, most).await
}

async fn fill<C: Connection>(url: &str, statements: &[&str])
where
    for<'c> &'c mut C: Executor<'c>,
{
    let started = Instant::now();
    let mut connection = C::connect(url).await.expect("a connection");
    for statement in statements {
        let done = connection.execute(AssertSqlSafe(*statement)).await;
        done.expect("the table is filled");
    }
    println!("filled in {:.0} s", started.elapsed().as_secs_f64());
}
