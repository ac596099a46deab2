//! Transactions of handlers in PostgreSQL.
//!
//! The marker is a setting that ends with the transaction. The name of the application carries it as well, so that the
//! session of a COMMIT in doubt can be found and ended.

use std::time::Duration;

use sqlx::{PgConnection, Postgres, Row as _};

use super::{code, is_fatal, millis};
use crate::store::sql::{
    TableName,
    pool::SessionId,
    transaction::{
        Refusal,
        server::{Largest, Lost, ServerTransactions},
    },
};

impl ServerTransactions for Postgres {
    const MARKED: &'static str =
        "and current_setting('idempotent.transaction', true) = encode({marker}, 'hex')";

    /// `RESET ALL` sets back what an earlier handler has set for its session, and what the store had: of that only
    /// `synchronous_commit` counts here, as in `session.sql`.
    fn begin(marker: &str, lease: Duration, _: Option<&str>) -> String {
        let lease = millis(lease);
        format!(
            "reset session authorization; reset all; \
             begin isolation level read committed read write; \
             set local idempotent.transaction = '{marker}'; \
             set local application_name = 'idempotent {marker}'; \
             set local statement_timeout = 0; \
             set local lock_timeout = {lease}; \
             set local idle_in_transaction_session_timeout = {lease}; \
             select case when current_setting('synchronous_commit') = 'off' \
             then set_config('synchronous_commit', 'on', true) end"
        )
    }

    /// The completion shows it.
    async fn unmark(_: &mut PgConnection) -> Result<bool, sqlx::Error> {
        Ok(true)
    }

    /// A transaction that has failed answers nothing, and cannot be committed either.
    async fn is_whole(connection: &mut PgConnection, marker: &str) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(
            "select current_setting('idempotent.transaction', true) is not distinct from $1",
        )
        .bind(marker)
        .fetch_one(connection)
        .await
    }

    fn refusal(error: &sqlx::Error) -> Refusal {
        let Some(code) = code(error) else {
            return Refusal::Unanswered;
        };
        match &*code {
            // A serialization failure, a deadlock, a lock that was not to be had, a statement that was cancelled; the
            // session was idle for too long, or its transaction took too long.
            "40001" | "40P01" | "55P03" | "57014" | "25P03" | "25P04" => Refusal::Retry,
            // The connection broke, or the server ended the session, and may have committed before.
            code if code.starts_with("08") || code.starts_with("57P") => Refusal::Unanswered,
            _ if is_fatal(error) => Refusal::Unanswered,
            // The server lacks memory, connections or room.
            code if code.starts_with("53") => Refusal::Retry,
            _ => Refusal::Final,
        }
    }

    async fn look_around(
        connection: &mut PgConnection,
        table: &TableName,
        _: &Largest,
    ) -> Result<Option<String>, sqlx::Error> {
        sqlx::query_scalar(
            "select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.oid = to_regclass(quote_ident($1))",
        )
        .persistent(false)
        .bind(table.name())
        .fetch_optional(connection)
        .await
    }

    /// Its marker tells it from others.
    async fn identify(_: &mut PgConnection) -> Result<SessionId, sqlx::Error> {
        Ok(SessionId::default())
    }

    async fn end(connection: &mut PgConnection, lost: &Lost) -> Result<(), sqlx::Error> {
        let found = sqlx::query(include_str!("end.sql"))
            .bind(format!("idempotent {}", lost.marker))
            .fetch_optional(connection)
            .await?;
        match found {
            Some(row) if row.try_get::<bool, _>(0)? => Err(sqlx::Error::Protocol(
                "the transaction waits for its synchronous standby: it is committed and not visible yet".into(),
            )),
            _ => Ok(()),
        }
    }
}
