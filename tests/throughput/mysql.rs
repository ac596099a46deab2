//! MariaDB, compared with connections that send the same two statements.

use idempotent_runtime::store::{Claim, sql::mysql::MySqlStore};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, SqlStr};

use crate::{
    driver::{Client, Server, compare, hex, micros, statement, statement_of, stored_response},
    servers::mariadb::MariaDb,
};

const CLAIM: &str = include_str!("../../idempotent-runtime/src/store/sql/mysql/claim.sql");
const COMPLETE: &str = include_str!("../../idempotent-runtime/src/store/sql/mysql/complete.sql");

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
                claim: statement(CLAIM),
                complete: statement_of(COMPLETE),
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
            .replace("{expiry}", &micros(claim.lease + claim.ttl).to_string())
            .replace("{trace_id}", "null");
        let claimed = self.connection.fetch_all(AssertSqlSafe(sent)).await;
        assert_eq!(claimed.expect("claim").len(), 1);
        let completed = sqlx::query(self.complete.clone())
            .bind(1_i16)
            .bind(&self.response)
            .bind(micros(claim.ttl))
            .bind(&claim.key.as_bytes()[..])
            .bind(&claim.token.as_bytes()[..])
            .execute(&mut self.connection)
            .await;
        assert_eq!(completed.expect("complete").rows_affected(), 1);
    }
}
