//! The statements for one table, each in its own file.

use std::fmt::Write as _;

use sqlx::SqlStr;

use crate::store::{
    record::Claim,
    sql::{TableName, row::micros, statement::Dialect},
};

const MYSQL: Dialect = Dialect { quote: '`' };

/// Every version of the table, in order: the first makes version 1.
///
/// These servers commit every schema change at once, so each migration can be repeated.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];

/// The version that this crate works with.
#[expect(clippy::cast_possible_wrap, reason = "migrations are few")]
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

pub(super) struct Statements {
    claim: SqlStr,
    pub(super) read: SqlStr,
    pub(super) lease: SqlStr,
    pub(super) renew: SqlStr,
    pub(super) complete: SqlStr,
    pub(super) release: SqlStr,
    pub(super) abandon: SqlStr,
    pub(super) batch: SqlStr,
    pub(super) purge: SqlStr,
    pub(super) packet: SqlStr,
    pub(super) server: SqlStr,
    pub(super) binary_log: SqlStr,
    pub(super) exists: SqlStr,
    pub(super) lock: SqlStr,
    pub(super) unlock: SqlStr,
    pub(super) versions: SqlStr,
    pub(super) version: SqlStr,
    pub(super) migrated: SqlStr,
    pub(super) migrations: Vec<SqlStr>,
}

impl Statements {
    pub(super) fn new(table: &TableName) -> Self {
        let statement = |file: &str| MYSQL.statement(file, table);
        Self {
            claim: statement(include_str!("claim.sql")),
            read: statement(include_str!("read.sql")),
            lease: statement(include_str!("lease.sql")),
            renew: statement(include_str!("renew.sql")),
            complete: statement(include_str!("complete.sql")),
            release: statement(include_str!("release.sql")),
            abandon: statement(include_str!("abandon.sql")),
            batch: statement(include_str!("batch.sql")),
            purge: statement(include_str!("purge.sql")),
            packet: statement(include_str!("packet.sql")),
            server: statement(include_str!("server.sql")),
            binary_log: statement(include_str!("binary_log.sql")),
            exists: statement(include_str!("exists.sql")),
            lock: statement(include_str!("lock.sql")),
            unlock: statement(include_str!("unlock.sql")),
            versions: statement(include_str!("versions.sql")),
            version: statement(include_str!("version.sql")),
            migrated: statement(include_str!("migrated.sql")),
            migrations: MIGRATIONS.map(statement).into(),
        }
    }

    /// The claim with its values inserted as text: digests and random bytes in hexadecimal, and two numbers. No text
    /// from a client is among them.
    pub(super) fn claim(&self, claim: &Claim) -> String {
        let lease = micros(claim.lease);
        let trace_id = claim
            .trace_id
            .map_or_else(|| "null".to_owned(), |id| hex(id.as_bytes()));
        self.claim
            .as_str()
            .replace("{key}", &hex(claim.key.as_bytes()))
            .replace("{fingerprint}", &hex(claim.fingerprint.as_bytes()))
            .replace("{token}", &hex(claim.token.as_bytes()))
            .replace("{lease}", &lease.to_string())
            .replace("{expiry}", &(lease + micros(claim.ttl)).to_string())
            .replace("{trace_id}", &trace_id)
    }
}

/// Sets up a session of the store's own.
pub(super) fn session(seconds: u64) -> String {
    let session = MYSQL.statement(include_str!("session.sql"), &TableName::default());
    session.as_str().replace("{seconds}", &seconds.to_string())
}

/// An SQL literal of these bytes.
fn hex(bytes: &[u8]) -> String {
    let mut literal = String::with_capacity(3 + 2 * bytes.len());
    literal.push_str("x'");
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(literal, "{byte:02x}");
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{fingerprint::Fingerprint, scope::StoreKey, store::token::Token};

    #[test]
    fn a_claim_is_two_statements_with_hexadecimal_literals() {
        let claim = Claim::new(
            StoreKey::from_bytes([1; 32]),
            Fingerprint::from_bytes([0xab; 32]),
            Token::from_bytes([0xff; 16]),
            Duration::from_secs(30),
            Duration::MAX,
        );
        let sent = Statements::new(&TableName::default()).claim(&claim);
        assert!(!sent.contains(['{', '}', '?', '"']), "{sent}");
        assert_eq!(sent.matches(';').count(), 1, "{sent}");
        assert_eq!(sent.matches(&hex(&[1; 32])).count(), 2, "{sent}");
        assert!(sent.contains("interval 30000000 microsecond"), "{sent}");
    }
}
