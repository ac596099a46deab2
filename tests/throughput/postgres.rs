//! PostgreSQL, compared with connections that send the same two statements, and with pgbench.

use std::{ffi::OsStr, process::Command};

use idempotent_runtime::store::{Claim, sql::postgres::PostgresStore};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqlSafeStr as _, SqlStr};

use crate::{
    driver::{Client, Server, compare, hex, micros, statement, stored_response},
    servers::{
        Folder,
        postgres::{Postgres, program},
    },
};

const PGBENCH_SECONDS: u64 = 6;

const ACQUIRE: &str = include_str!("../../idempotent-runtime/src/store/sql/postgres/claim.sql");
const COMPLETE: &str = include_str!("../../idempotent-runtime/src/store/sql/shared/complete.sql");

/// How this server writes what the files name in braces.
const WORDS: [(&str, &str); 7] = [
    (
        "{held}",
        "store_key = {key} and token = {token} and state = 0",
    ),
    (
        "{now + lease + ttl}",
        "clock_timestamp() + ({lease} + {ttl})::bigint * interval '1 microsecond'",
    ),
    (
        "{now + lease}",
        "clock_timestamp() + {lease} * interval '1 microsecond'",
    ),
    (
        "{now + ttl}",
        "clock_timestamp() + {ttl} * interval '1 microsecond'",
    ),
    (
        "{left lease_until}",
        "(extract(epoch from lease_until - clock_timestamp()) * 1000000)::bigint",
    ),
    (
        "{left expires_at}",
        "(extract(epoch from expires_at - clock_timestamp()) * 1000000)::bigint",
    ),
    ("{now}", "clock_timestamp()"),
];
/// The values of the two statements, in the order of their parameters here.
const ACQUIRED: [&str; 9] = [
    "{key}",
    "{fingerprint}",
    "{token}",
    "{lease}",
    "{ttl}",
    "{take_over}",
    "{trace_id}",
    "{tx_token}",
    "{endpoint}",
];
const COMPLETED: [&str; 6] = [
    "{key}",
    "{token}",
    "{state}",
    "{response}",
    "{bytes}",
    "{ttl}",
];

/// Whether the store is fast enough; nothing if that cannot be measured here.
pub(crate) async fn measure() -> Option<bool> {
    Some(compare(&Postgres::start()?).await)
}

impl Server for Postgres {
    type Store = PostgresStore;
    type Bare = Bare;

    async fn store(&self, connections: usize) -> PostgresStore {
        let builder = PostgresStore::builder()
            .migrate(true)
            .connections(connections);
        builder.connect(&self.url()).await.expect("a store")
    }

    async fn bare(&self, clients: usize) -> Vec<Bare> {
        let mut all = Vec::new();
        for _ in 0..clients {
            all.push(Bare {
                connection: PgConnection::connect(&self.url())
                    .await
                    .expect("a connection"),
                acquire: prepared(ACQUIRE, &ACQUIRED),
                complete: prepared(COMPLETE, &COMPLETED),
                response: stored_response(),
            });
        }
        all
    }

    async fn empty(&self) {
        let mut behind = PgConnection::connect(&self.url())
            .await
            .expect("a connection");
        behind
            .execute("truncate idempotency_records")
            .await
            .expect("truncate");
        // So that no dirty pages of this round are left to the next.
        behind.execute("checkpoint").await.expect("checkpoint");
    }

    /// pgbench, which draws a number and computes key and token from it on the server.
    fn program(&self, clients: usize) -> Option<f64> {
        Some(pgbench(self, clients))
    }
}

/// One connection and the two statements.
pub(crate) struct Bare {
    connection: PgConnection,
    acquire: SqlStr,
    complete: SqlStr,
    response: Vec<u8>,
}

impl Client for Bare {
    async fn pair(&mut self, claim: &Claim) {
        let acquired = sqlx::query(self.acquire.clone())
            .bind(&claim.key.as_bytes()[..])
            .bind(&claim.fingerprint.as_bytes()[..])
            .bind(&claim.token.as_bytes()[..])
            .bind(micros(claim.lease))
            .bind(micros(claim.ttl))
            .bind(None::<&[u8]>)
            .bind(None::<&[u8]>)
            .bind(None::<&[u8]>)
            .bind(None::<&str>)
            .fetch_all(&mut self.connection)
            .await;
        assert_eq!(acquired.expect("acquire").len(), 1);
        let completed = sqlx::query(self.complete.clone())
            .bind(&claim.key.as_bytes()[..])
            .bind(&claim.token.as_bytes()[..])
            .bind(1_i16)
            .bind(&self.response)
            .bind(i64::try_from(self.response.len()).expect("short"))
            .bind(micros(claim.ttl))
            .execute(&mut self.connection)
            .await;
        assert_eq!(completed.expect("complete").rows_affected(), 1);
    }
}

/// A statement with values in the places of its parameters.
fn put(file: &str, names: &[&str], values: &[&str]) -> String {
    let text = statement(file, &WORDS);
    names
        .iter()
        .zip(values)
        .fold(text, |text, (name, value)| text.replace(name, value))
}

fn prepared(file: &str, names: &[&str]) -> SqlStr {
    let places: Vec<String> = (1..=names.len()).map(|n| format!("${n}")).collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    AssertSqlSafe(put(file, names, &places)).into_sql_str()
}

/// Pairs per second by pgbench.
fn pgbench(server: &Postgres, clients: usize) -> f64 {
    let folder = Folder::new("pgbench");
    let script = folder.path().join("pair.sql");
    std::fs::write(&script, pair()).expect("a script");
    let [port, clients, seconds] =
        [u64::from(server.port()), clients as u64, PGBENCH_SECONDS].map(|n| n.to_string());
    let output = Command::new(program("pgbench").expect("it comes with the server"))
        .args([
            "--no-vacuum",
            "--protocol=prepared",
            "--jobs=2",
            "--client",
            &clients,
            "--time",
            &seconds,
        ])
        .args([
            "--host=127.0.0.1",
            "--username=test",
            "--port",
            &port,
            "--file",
        ])
        .args([script.as_os_str(), OsStr::new("postgres")])
        .output()
        .expect("pgbench");
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The two statements as a pgbench script, with literals in place of parameters.
fn pair() -> String {
    let key = "sha256((:n)::text::bytea)";
    let token = "decode(md5((:n)::text), 'hex')";
    let literal = |bytes: &[u8]| format!(r"'\x{}'::bytea", hex(bytes));
    let ttl = "86400000000::bigint";
    let acquire = [
        key,
        &literal(&[1; 32]),
        token,
        "30000000::bigint",
        ttl,
        "null",
        "null",
        "null",
        "null",
    ];
    let complete = [
        key,
        token,
        "1::smallint",
        &literal(&stored_response()),
        "200",
        ttl,
    ];
    format!(
        "\\set n random(1, 9000000000000000)\n{};\n{};\n",
        put(ACQUIRE, &ACQUIRED, &acquire),
        put(COMPLETE, &COMPLETED, &complete)
    )
}
