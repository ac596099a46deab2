//! The tables that are purged, filled by their own servers.

use std::{future::Future, time::Duration};

use idempotent_runtime::store::sql::{
    mysql::MySqlStore, postgres::PostgresStore, sqlite::SqliteStore,
};
use sqlx::{Connection as _, Executor as _, MySqlConnection, PgConnection, SqliteConnection};

use crate::{
    CLIENTS,
    driver::{as_long, hex},
    measure,
    servers::{Folder, mariadb::MariaDb, postgres::Postgres},
};

/// A table behind a store's back.
pub(crate) trait Table {
    /// Fills it with this many expired records.
    fn fill(&self, records: u64) -> impl Future<Output = ()>;
    /// Whether all of them are gone, as cheaply as that can be told: it is asked during the measurement.
    fn is_purged(&self, records: u64) -> impl Future<Output = bool>;
    /// How many are left, counted.
    fn left(&self) -> impl Future<Output = i64>;
}

const COLUMNS: &str =
    "store_key, fingerprint, token, attempt, state, lease_until, expires_at, trace_id, response";

pub(crate) async fn postgres(records: u64, most: Duration) -> Option<f64> {
    let server = Postgres::start()?;
    let builder = PostgresStore::builder()
        .migrate(true)
        .connections(CLIENTS as usize);
    let store = builder.connect(&server.url()).await.expect("a store");
    Some(measure(&server, store, records, most).await)
}

pub(crate) async fn mariadb(records: u64, most: Duration) -> Option<f64> {
    let server = MariaDb::start()?;
    let builder = MySqlStore::builder()
        .migrate(true)
        .connections(CLIENTS as usize);
    let store = builder.connect(&server.url()).await.expect("a store");
    Some(measure(&server, store, records, most).await)
}

pub(crate) async fn sqlite(records: u64, most: Duration) -> Option<f64> {
    let file = File(Folder::new("purge"));
    let store = SqliteStore::connect(&file.url()).await.expect("a store");
    Some(measure(&file, store, records, most).await)
}

impl Table for Postgres {
    async fn fill(&self, records: u64) {
        let mut behind = PgConnection::connect(&self.url())
            .await
            .expect("a connection");
        let response = hex(&as_long());
        // The primary key afterwards: digests come in no order, and an index is made faster than it is kept.
        let statements = [
            "set maintenance_work_mem = '512MB'",
            "alter table idempotency_records drop constraint idempotency_records_pkey",
            &format!(
                "insert into idempotency_records ({COLUMNS}) select sha256(n::text::bytea), \
                 sha256('a request'), '\\x{}', 1, 1, expired, expired, null, '\\x{response}' \
                 from (select n, now() - interval '1 hour' - ({records} - n) * interval '100 microseconds' as expired \
                 from generate_series(1, {records}) as n) as past",
                "07".repeat(16)
            ),
            "alter table idempotency_records add primary key (store_key)",
            "vacuum analyze idempotency_records",
            "checkpoint",
        ];
        for statement in statements {
            behind
                .execute(statement)
                .await
                .expect("the table is filled");
        }
    }

    /// By the server's statistics: to look for one would read what is being purged, and slow down what is measured.
    async fn is_purged(&self, records: u64) -> bool {
        let deleted =
            "select n_tup_del from pg_stat_user_tables where relname = 'idempotency_records'";
        let deleted = pg(&self.url(), deleted).await;
        deleted.unsigned_abs() >= records
    }

    async fn left(&self) -> i64 {
        let left = "select count(*) from idempotency_records where expires_at <= now()";
        pg(&self.url(), left).await
    }
}

/// The one number that this asks for.
async fn pg(url: &str, question: &str) -> i64 {
    let mut behind = PgConnection::connect(url).await.expect("a connection");
    sqlx::query_scalar(question)
        .fetch_one(&mut behind)
        .await
        .expect("a number")
}

impl Table for MariaDb {
    async fn fill(&self, records: u64) {
        let mut behind = MySqlConnection::connect(&self.url())
            .await
            .expect("a connection");
        let fill = format!(
            "insert into idempotency_records ({COLUMNS}) select unhex(sha2(seq, 256)), \
             unhex(sha2('a request', 256)), x'{}', 1, 1, utc_timestamp(6) - interval 1 hour, \
             utc_timestamp(6) - interval 1 hour - interval ({records} - seq) * 100 microsecond, null, x'{}' \
             from seq_1_to_{records}",
            "07".repeat(16),
            hex(&as_long())
        );
        behind.execute(&*fill).await.expect("the table is filled");
    }

    async fn is_purged(&self, _: u64) -> bool {
        let one = "select count(*) from (select 1 from idempotency_records where expires_at <= utc_timestamp(6) limit 1) as one";
        my(&self.url(), one).await == 0
    }

    async fn left(&self) -> i64 {
        let left = "select count(*) from idempotency_records where expires_at <= utc_timestamp(6)";
        my(&self.url(), left).await
    }
}

/// The one number that this asks for.
async fn my(url: &str, question: &str) -> i64 {
    let mut behind = MySqlConnection::connect(url).await.expect("a connection");
    sqlx::query_scalar(question)
        .fetch_one(&mut behind)
        .await
        .expect("a number")
}

/// A file in a folder of its own.
struct File(Folder);

impl File {
    fn url(&self) -> String {
        format!("sqlite://{}", self.0.path().join("records.db").display())
    }
}

impl Table for File {
    async fn fill(&self, records: u64) {
        let mut behind = SqliteConnection::connect(&self.url())
            .await
            .expect("a connection");
        let fill = format!(
            "with recursive past (n) as (select 1 union all select n + 1 from past where n < {records}) \
             insert into idempotency_records ({COLUMNS}) select randomblob(32), zeroblob(32), zeroblob(16), 1, 1, \
             unixepoch() * 1000000 - 3600000000, unixepoch() * 1000000 - 3600000000 - ({records} - n) * 100, null, \
             x'{}' from past",
            hex(&as_long())
        );
        behind.execute(&*fill).await.expect("the table is filled");
    }

    async fn is_purged(&self, _: u64) -> bool {
        let one = "select exists (select 1 from idempotency_records where expires_at <= unixepoch() * 1000000)";
        lite(&self.url(), one).await == 0
    }

    async fn left(&self) -> i64 {
        let left =
            "select count(*) from idempotency_records where expires_at <= unixepoch() * 1000000";
        lite(&self.url(), left).await
    }
}

/// The one number that this asks for.
async fn lite(url: &str, question: &str) -> i64 {
    let mut behind = SqliteConnection::connect(url).await.expect("a connection");
    sqlx::query_scalar(question)
        .fetch_one(&mut behind)
        .await
        .expect("a number")
}
