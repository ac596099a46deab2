//! What a server of MySQL or MariaDB reports about itself, and what the store makes of it.

use std::collections::HashMap;

use sqlx::{MySql, MySqlConnection, Row as _, mysql::MySqlRow};

use crate::store::{
    sql::{ConnectError, probe::Probe, setup::refused},
    weakness::Weakness,
};

/// The size of a statement besides the body of a response: its headers, and the rest of the row.
const OVERHEAD: u64 = 64 << 10;

const VARIABLES: &str = include_str!("variables.sql");

/// Variables of the server and the session, by their names.
pub(super) type Variables = HashMap<String, String>;

pub(super) async fn variables(connection: &mut MySqlConnection) -> Result<Variables, sqlx::Error> {
    let variables = sqlx::query_as(VARIABLES).fetch_all(connection).await?;
    Ok(variables.into_iter().collect())
}

/// Checks what the operator cannot accept. Returns the size of the largest packet.
pub(super) fn check_server(server: &MySqlRow, largest: u64) -> Result<u64, ConnectError> {
    let is = |index: usize| {
        server
            .try_get::<i64, _>(index)
            .map_err(refused::<MySql>("report its settings"))
    };
    let (packet, read_only, autocommit) = (is(0)?, is(1)?, is(2)?);
    let (bytes, needed) = (u64::try_from(packet).unwrap_or(0), largest + OVERHEAD);
    if bytes < needed {
        return Err(ConnectError::PacketTooSmall { bytes, needed });
    }
    if read_only != 0 {
        return Err(ConnectError::Unsuitable {
            reason: "the MySQL server is read-only, as a replica is: give the address of its primary",
        });
    }
    if autocommit != 1 {
        return Err(ConnectError::Unsuitable {
            reason: "the pool's sessions have autocommit = 0, so that no write would be committed: set it to 1",
        });
    }
    Ok(bytes)
}

/// What identifies the server. MariaDB has no `server_uuid`.
pub(super) fn identity(variables: &Variables) -> Option<String> {
    let value = |name: &str| variables.get(name).cloned();
    value("server_uuid").or_else(|| {
        let parts = ["hostname", "port", "datadir", "server_id"];
        let parts: Option<Vec<_>> = parts.into_iter().map(value).collect();
        parts.map(|parts| parts.join(" "))
    })
}

/// What the server reports of its durability.
pub(super) fn probe(variables: &Variables) -> Probe {
    let mut probe = Probe::default();
    let value = |name| variables.get(name).map(String::as_str);
    let flush = value("innodb_flush_log_at_trx_commit");
    probe.read("innodb_flush_log_at_trx_commit", flush, |value| {
        let weakness = Weakness::InnodbFlushLogAtTrxCommit;
        (!matches!(value, "1" | "3")).then_some(weakness)
    });
    probe.read("innodb_doublewrite", value("innodb_doublewrite"), |value| {
        let off = matches!(value, "0" | "OFF" | "DETECT_ONLY");
        off.then_some(Weakness::InnodbDoublewriteOff)
    });
    let log = value("log_bin");
    probe.read("log_bin", log, |value| {
        is_off(value).then_some(Weakness::NoBinaryLog)
    });
    // With a binary log, a commit is flushed together with the log and no earlier. MariaDB's value 3 flushes more than 1
    // does, and does not depend on the binary log.
    if log.is_some_and(|log| !is_off(log)) && flush != Some("3") {
        probe.read("sync_binlog", value("sync_binlog"), |value| {
            (value != "1").then_some(Weakness::SyncBinlog)
        });
    }
    probe
}

fn is_off(value: &str) -> bool {
    matches!(value, "0" | "OFF")
}

/// Rows cannot be changed under `read committed` if the format of the binary log is `STATEMENT`.
pub(super) fn check_binary_log(variables: &Variables) -> Result<(), ConnectError> {
    let isolation = ["tx_isolation", "transaction_isolation"];
    let isolation = isolation.iter().find_map(|name| variables.get(*name));
    let reads_committed = isolation
        .is_some_and(|value| matches!(value.as_str(), "READ-COMMITTED" | "READ-UNCOMMITTED"));
    let format = variables.get("binlog_format");
    if reads_committed && format.is_some_and(|format| format == "STATEMENT") {
        return Err(ConnectError::Unsuitable {
            reason: "the MySQL server has binlog_format = STATEMENT, which does not allow writes under read committed: \
                     set it to ROW or MIXED",
        });
    }
    Ok(())
}
