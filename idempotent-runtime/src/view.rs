//! What tools show of records and of what operators did: the same names in the command line's output and on the admin
//! pages. Only a [`RevealedView`] contains a header or a body that a client got; nothing contains a key.

use std::{fmt::Write as _, time::SystemTime};

use http::HeaderValue;
use serde::Serialize;

use crate::{
    hex::Hex,
    response::CorruptResponse,
    store::{
        ClaimMode, Outcome, Record, RecordState,
        admin::Kept,
        inspect::{Entry, EntryState, KeyPrefix, StateKind, Stats},
    },
};

/// A record, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecordView {
    /// All 64 digits of its key; logs print the first sixteen.
    pub id: String,
    /// `in-flight`, `unknown`, `completed` or `tombstone`.
    pub state: &'static str,
    /// The endpoint that it was claimed for.
    pub endpoint: Option<String>,
    /// The number of its newest lease.
    pub attempt: u32,
    /// `plain` or `transactional`.
    pub mode: &'static str,
    /// The digest of whoever made the request: it tells callers apart and names none.
    pub caller: Option<String>,
    /// In UTC, to the second (RFC 3339).
    pub created_at: Option<String>,
    /// In UTC, to the second (RFC 3339).
    pub completed_at: Option<String>,
    /// What is left of its lease, in seconds, where it is in flight.
    pub lease_left_seconds: Option<u64>,
    /// For how long it has been unknown, in seconds, where it is.
    pub unknown_for_seconds: Option<u64>,
    /// When it expires, in seconds from now.
    pub expires_in_seconds: u64,
    /// The bytes of the stored response, as they are stored.
    pub stored_bytes: u64,
    /// The W3C trace id of its execution.
    pub trace_id: Option<String>,
}

/// A record with its stored response: what [`Operator::reveal`](crate::Operator::reveal) read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RevealedView {
    /// The record, as it is listed.
    #[serde(flatten)]
    pub record: RecordView,
    /// The status of the stored response, if there is one.
    pub status: Option<u16>,
    /// Its stored headers. Bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// Its body as text where it is UTF-8, otherwise its bytes in hexadecimal.
    pub body: Option<String>,
    /// Whether `body` is in hexadecimal.
    pub body_is_hexadecimal: bool,
}

/// How many records there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StatsView {
    /// Executions that hold their keys.
    pub in_flight: u64,
    /// Lapsed without an outcome.
    pub unknown: u64,
    /// Stored responses.
    pub completed: u64,
    /// Executed without a stored response.
    pub tombstones: u64,
    /// All of them.
    pub records: u64,
    /// The bytes of the stored responses.
    pub stored_bytes: u64,
    /// Whether these are counted; otherwise they are estimated from a sample.
    pub exact: bool,
}

/// Something that an operator did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditView {
    /// In UTC, to the second (RFC 3339).
    pub at: String,
    /// Which act it belongs to.
    pub act: String,
    /// Who it was.
    pub actor: String,
    /// `resolve`, `release`, `forget` or `reveal`.
    pub action: String,
    /// `begun`, `done` or `failed`.
    pub stage: String,
    /// All 64 digits of the record's key.
    pub record: String,
    /// The endpoint of the record.
    pub endpoint: Option<String>,
    /// Why.
    pub reason: String,
    /// What the record was before.
    pub before: String,
    /// What became of it.
    pub after: String,
}

impl From<&Entry> for RecordView {
    fn from(entry: &Entry) -> Self {
        let (lease_left, unknown_for) = match entry.state {
            EntryState::InFlight { remaining } => (Some(remaining.as_secs()), None),
            EntryState::Unknown { lapsed } => (None, Some(lapsed.as_secs())),
            EntryState::Completed | EntryState::Tombstone => (None, None),
        };
        Self {
            id: KeyPrefix::from(&entry.key).to_string(),
            state: state(entry.state.kind()),
            endpoint: entry.endpoint.as_deref().map(str::to_owned),
            attempt: entry.attempt,
            mode: match entry.mode {
                ClaimMode::Plain => "plain",
                ClaimMode::Transactional => "transactional",
            },
            caller: entry
                .fingerprint
                .caller_digest()
                .map(|digest| Hex(&digest).to_string()),
            created_at: entry.created_at.map(time),
            completed_at: entry.completed_at.map(time),
            lease_left_seconds: lease_left,
            unknown_for_seconds: unknown_for,
            expires_in_seconds: entry.expires_in.as_secs(),
            stored_bytes: entry.stored_bytes,
            trace_id: entry.trace_id.map(|id| id.to_string()),
        }
    }
}

impl RevealedView {
    /// The record of this entry, as it was revealed.
    ///
    /// # Errors
    ///
    /// If the response is damaged, or encrypted under a key that the engine does not have.
    pub fn new(entry: &Entry, record: &Record) -> Result<Self, CorruptResponse> {
        let mut view = Self {
            record: RecordView::from(entry),
            status: None,
            headers: vec![],
            body: None,
            body_is_hexadecimal: false,
        };
        if let RecordState::Completed(Outcome::Response(response)) = &record.state {
            let (status, headers, bytes) = response.decode()?;
            view.status = Some(status.as_u16());
            let lossy =
                |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = headers.iter();
            view.headers = headers
                .map(|(name, value)| (name.to_string(), lossy(value)))
                .collect();
            let (text, hexadecimal) = body(&bytes);
            view.body = Some(text);
            view.body_is_hexadecimal = hexadecimal;
        }
        Ok(view)
    }
}

impl From<&Stats> for StatsView {
    fn from(stats: &Stats) -> Self {
        Self {
            in_flight: stats.estimate(stats.in_flight),
            unknown: stats.estimate(stats.unknown),
            completed: stats.estimate(stats.completed),
            tombstones: stats.estimate(stats.tombstones),
            records: stats.estimate(stats.records()),
            stored_bytes: stats.estimate(stats.stored_bytes),
            exact: stats.is_exact(),
        }
    }
}

impl From<&Kept> for AuditView {
    fn from(kept: &Kept) -> Self {
        let event = &kept.event;
        Self {
            at: time(kept.at),
            act: event.act.to_string(),
            actor: event.actor.to_string(),
            action: event.action.to_string(),
            stage: event.stage.to_string(),
            record: event.record.to_string(),
            endpoint: event.endpoint.as_deref().map(str::to_owned),
            reason: event.reason.to_string(),
            before: event.before.to_string(),
            after: event.after.to_string(),
        }
    }
}

/// The name of a state, in options and addresses.
#[must_use]
pub fn state(kind: StateKind) -> &'static str {
    match kind {
        StateKind::InFlight => "in-flight",
        StateKind::Unknown => "unknown",
        StateKind::Completed => "completed",
        StateKind::Tombstone => "tombstone",
    }
}

/// A time in UTC, to the second (RFC 3339).
#[must_use]
pub fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A body as text, if it is one; otherwise its bytes in hexadecimal, and `true`.
#[must_use]
pub fn body(bytes: &[u8]) -> (String, bool) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (text.to_owned(), false);
    }
    let digits = bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    });
    (digits, true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Fingerprint, StoreKey};

    #[test]
    fn times_are_in_utc() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(time(at), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn a_record_is_shown_by_its_whole_id_and_how_long_it_has_been_unknown() {
        let entry = Entry::new(
            StoreKey::from_bytes([0xab; 32]),
            Fingerprint::from_bytes([1; 32]),
            EntryState::Unknown {
                lapsed: Duration::from_millis(61_900),
            },
            Duration::from_secs(3600),
        );
        let view = serde_json::to_value(RecordView::from(&entry)).unwrap();
        assert_eq!(view["id"], "ab".repeat(32));
        assert_eq!(view["state"], "unknown");
        assert_eq!(view["unknown_for_seconds"], 61);
        assert_eq!(view["lease_left_seconds"], serde_json::Value::Null);
    }

    #[test]
    fn a_body_that_is_no_text_is_shown_in_hexadecimal() {
        assert_eq!(body(b"paid"), ("paid".to_owned(), false));
        assert_eq!(body(&[0xff, 0x00]), ("ff00".to_owned(), true));
    }
}
