//! MariaDB, compared with connections that send the same two statements.

use idempotent_runtime::store::{Claim, sql::mysql::MySqlStore};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, SqlSafeStr as _, SqlStr,
};

use crate::{
    driver::{Client, Server, compare, hex, micros, statement, stored_response},
    servers::mariadb::MariaDb,
};

const CLAIM: &str = include_str!("../../idempotent-runtime/src/store/sql/mysql/claim.sql");
const COMPLETE: &str = include_str!("../../idempotent-runtime/src/store/sql/shared/complete.sql");

/// How this server writes what the files name in braces.
const WORDS: [(&str, &str); 9] = [
    (
        "{held}",
        "store_key = {key} and token = {token} and state = 0",
    ),
    (
        "{now + lease + ttl}",
        "utc_timestamp(6) + interval ({lease} + {ttl}) microsecond",
    ),
    (
        "{now + lease}",
        "utc_timestamp(6) + interval {lease} microsecond",
    ),
    (
        "{now + ttl}",
        "utc_timestamp(6) + interval {ttl} microsecond",
    ),
    (
        "{left lease_until}",
        "timestampdiff(microsecond, utc_timestamp(6), lease_until)",
    ),
    (
        "{left expires_at}",
        "timestampdiff(microsecond, utc_timestamp(6), expires_at)",
    ),
    ("{now}", "utc_timestamp(6)"),
    ("{int state}", "cast(state as signed)"),
    ("{int attempt}", "cast(attempt as signed)"),
];

/// Whether the store is fast enough; nothing if that cannot be measured here.
pub(crate) async fn measure() -> Option<bool> {
    Some(compare(&MariaDb::start()?).await)
}

impl Server for MariaDb {
    type Store = MySqlStore;
    type Bare = Bare;

    async fn store(&self, connections: usize) -> MySqlStore {
        let builder = MySqlStore::builder().migrate(true).connections(connections);
        builder.connect(&self.url()).await.expect("a store")
    }

    async fn bare(&self, clients: usize) -> Vec<Bare> {
        let mut all = Vec::new();
        for _ in 0..clients {
            let mut connection = MySqlConnection::connect(&self.url())
                .await
                .expect("a connection");
            let isolation = "set session transaction isolation level read committed";
            connection.execute(isolation).await.expect("a setting");
            all.push(Bare {
                connection,
                claim: statement(CLAIM, &WORDS),
                complete: complete(),
                response: stored_response(),
            });
        }
        all
    }

    async fn empty(&self) {
        let mut behind = MySqlConnection::connect(&self.url())
            .await
            .expect("a connection");
        behind
            .execute("truncate idempotency_records")
            .await
            .expect("truncate");
    }

    /// MariaDB's own programs cannot run a script that draws its keys.
    fn program(&self, _: usize) -> Option<f64> {
        None
    }
}

/// The completion, with its values in the order of the text.
fn complete() -> SqlStr {
    let values = [
        "{state}",
        "{response}",
        "{bytes}",
        "{ttl}",
        "{key}",
        "{token}",
    ];
    let text = statement(COMPLETE, &WORDS);
    let text = values
        .iter()
        .fold(text, |text, value| text.replace(value, "?"));
    AssertSqlSafe(text).into_sql_str()
}

/// One connection and the two statements.
pub(crate) struct Bare {
    connection: MySqlConnection,
    claim: String,
    complete: SqlStr,
    response: Vec<u8>,
}

impl Client for Bare {
    async fn pair(&mut self, claim: &Claim) {
        let sent = self
            .claim
            .replace("{key}", &format!("x'{}'", hex(claim.key.as_bytes())))
            .replace(
                "{fingerprint}",
                &format!("x'{}'", hex(claim.fingerprint.as_bytes())),
            )
            .replace("{token}", &format!("x'{}'", hex(claim.token.as_bytes())))
            .replace("{lease}", &micros(claim.lease).to_string())
            .replace("{ttl}", &micros(claim.ttl).to_string())
            .replace("{trace_id}", "null")
            .replace("{tx_token}", "null")
            .replace("{endpoint}", "null");
        let claimed = self.connection.fetch_all(AssertSqlSafe(sent)).await;
        assert_eq!(claimed.expect("claim").len(), 1);
        let completed = sqlx::query(self.complete.clone())
            .bind(1_i16)
            .bind(&self.response)
            .bind(i64::try_from(self.response.len()).expect("short"))
            .bind(micros(claim.ttl))
            .bind(&claim.key.as_bytes()[..])
            .bind(&claim.token.as_bytes()[..])
            .execute(&mut self.connection)
            .await;
        assert_eq!(completed.expect("complete").rows_affected(), 1);
    }
}
