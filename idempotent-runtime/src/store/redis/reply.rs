//! What the scripts return, as the contract says it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use redis::Value;

use super::script::{Reply, bytes, unreadable};
use crate::{
    fingerprint::Fingerprint,
    response::StoredResponse,
    scope::StoreKey,
    store::{
        error::StoreError,
        inspect::{Entry, EntryState},
        record::{Acquisition, ClaimMode, Outcome, Record, RecordState},
        token::{Token, TraceId},
    },
};

/// Whether a script that writes was applied.
pub(super) fn applied(answer: &Value) -> bool {
    *answer == Value::Int(1)
}

/// Whether the script for acquire leased the key or returned an outcome, which a failover must not undo. Its other
/// answers make the client retry and need no confirmation.
pub(super) fn acquired_or_completed(answer: &Value) -> bool {
    let code = match answer {
        Value::Array(reply) => reply.first(),
        _ => None,
    };
    !matches!(code, Some(Value::Int(1 | 2 | 5)))
}

/// The answer of the script for acquire.
pub(super) fn acquisition(value: Value) -> Result<Acquisition, StoreError> {
    let mut reply = Reply::new(value)?;
    Ok(match reply.number::<i64>("the script returned no code")? {
        0 => Acquisition::Acquired {
            attempt: reply.number("the attempt is not a valid number")?,
        },
        1 => Acquisition::Mismatch {
            fingerprint: fingerprint(&mut reply)?,
        },
        2 => Acquisition::InFlight {
            remaining: Duration::from_millis(reply.number("the lease is not a valid time")?),
            lease: token(&mut reply)?,
        },
        3 => Acquisition::Completed(outcome(reply.bytes())?),
        4 => Acquisition::Completed(Outcome::Tombstone),
        5 => Acquisition::Unknown {
            lease: token(&mut reply)?,
            mode: mode(&mut reply),
        },
        _ => {
            return Err(unreadable(
                "the fields of the key are not those of a record",
            ));
        }
    })
}

/// The token of the lease that the record has.
fn token(reply: &mut Reply) -> Result<Token, StoreError> {
    let bytes = reply.bytes().and_then(|bytes| bytes[..].try_into().ok());
    bytes
        .map(Token::from_bytes)
        .ok_or_else(|| unreadable("its lease has no token"))
}

/// The fingerprint of the record.
fn fingerprint(reply: &mut Reply) -> Result<Fingerprint, StoreError> {
    let bytes = reply.bytes().and_then(|bytes| bytes[..].try_into().ok());
    bytes
        .map(Fingerprint::from_bytes)
        .ok_or_else(|| unreadable("the record has no fingerprint"))
}

/// The mode of the claim that has the record's lease.
fn mode(reply: &mut Reply) -> ClaimMode {
    match reply.number("") {
        Ok(1_u8) => ClaimMode::Transactional,
        _ => ClaimMode::Plain,
    }
}

/// A record as the script for get read it.
struct Read {
    state: Option<Bytes>,
    fingerprint: Fingerprint,
    attempt: u32,
    /// Milliseconds left of the lease; zero or negative if it has lapsed.
    lease: Option<i64>,
    expires_in: Duration,
    trace_id: Option<TraceId>,
    /// The response, or its size.
    response: Value,
    endpoint: Option<String>,
    mode: ClaimMode,
    created_at: Option<SystemTime>,
    completed_at: Option<SystemTime>,
    /// The time by the server's clock.
    now: Option<SystemTime>,
}

impl Read {
    /// `None` if the record is absent.
    fn of(answer: Value) -> Result<Option<Self>, StoreError> {
        let mut reply = Reply::new(answer)?;
        if reply.is_empty() {
            return Ok(None);
        }
        let state = reply.bytes();
        let fingerprint = fingerprint(&mut reply)?;
        let attempt = reply.number("the record has no attempt")?;
        let lease = reply.number("").ok();
        // Negative if the expiry of the key was removed by hand.
        let left: i64 = reply.number("the record has no expiry")?;
        let trace_id = reply.bytes().and_then(|bytes| bytes[..].try_into().ok());
        let response = reply.value();
        let endpoint = reply.bytes().filter(|endpoint| !endpoint.is_empty());
        let mode = mode(&mut reply);
        let mut time = || {
            let millis = reply.number("").ok().map(Duration::from_millis)?;
            SystemTime::UNIX_EPOCH.checked_add(millis)
        };
        Ok(Some(Self {
            state,
            fingerprint,
            attempt,
            lease,
            expires_in: u64::try_from(left).map_or(Duration::MAX, Duration::from_millis),
            trace_id: trace_id.and_then(TraceId::from_bytes),
            response,
            endpoint: endpoint.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            mode,
            created_at: time(),
            completed_at: time(),
            now: time(),
        }))
    }
}

/// The answer of the script for get.
pub(super) fn stored_record(value: Value) -> Result<Option<Record>, StoreError> {
    let Some(read) = Read::of(value)? else {
        return Ok(None);
    };
    let state = match (read.state.as_deref(), read.lease) {
        (Some(b"R"), Some(left)) => RecordState::InFlight {
            remaining: millis_of(left),
        },
        (Some(b"D"), _) => RecordState::Completed(outcome(bytes(read.response))?),
        (Some(b"T"), _) => RecordState::Completed(Outcome::Tombstone),
        _ => return Err(unrecognised()),
    };
    let record = Record::new(
        read.fingerprint,
        read.attempt,
        state,
        read.expires_in,
        read.trace_id,
    );
    let record = record.mode(read.mode).endpoint(read.endpoint);
    Ok(Some(record.times(read.created_at, read.completed_at)))
}

/// What a list shows of the record with this key, and the time by the server's clock. The answer of the script for get,
/// with the size of the response.
pub(super) fn entry(
    key: StoreKey,
    value: Value,
) -> Result<Option<(Entry, SystemTime)>, StoreError> {
    let Some(read) = Read::of(value)? else {
        return Ok(None);
    };
    let state = match (read.state.as_deref(), read.lease) {
        (Some(b"R"), Some(left)) if left > 0 => EntryState::InFlight {
            remaining: millis_of(left),
        },
        (Some(b"R"), Some(left)) => EntryState::Unknown {
            lapsed: millis_of(left.saturating_neg()),
        },
        (Some(b"D"), _) => EntryState::Completed,
        (Some(b"T"), _) => EntryState::Tombstone,
        _ => return Err(unrecognised()),
    };
    let now = read
        .now
        .ok_or_else(|| unreadable("the script returned no time"))?;
    let mut entry = Entry::new(key, read.fingerprint, state, read.expires_in);
    entry.attempt = read.attempt;
    entry.mode = read.mode;
    entry.endpoint = read.endpoint.map(Into::into);
    entry.created_at = read.created_at;
    entry.completed_at = read.completed_at;
    entry.trace_id = read.trace_id;
    if let (EntryState::Completed, Value::Int(size)) = (state, read.response) {
        entry.stored_bytes = size.unsigned_abs();
    }
    Ok(Some((entry, now)))
}

/// Milliseconds; none if they are negative.
fn millis_of(millis: i64) -> Duration {
    u64::try_from(millis).map_or(Duration::ZERO, Duration::from_millis)
}

fn unrecognised() -> StoreError {
    unreadable("unrecognised state (written by a newer version?)")
}

fn outcome(stored: Option<Bytes>) -> Result<Outcome, StoreError> {
    let stored = stored.ok_or_else(|| unreadable("the record has no response"))?;
    StoredResponse::from_bytes(stored)
        .map(Outcome::Response)
        .map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::error::StoreErrorKind;

    #[test]
    fn unexpected_replies_are_corrupt_records() {
        let text = |text: &[u8]| Value::BulkString(text.to_vec());
        for value in [
            Value::Nil,
            Value::Int(0),
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(0)]),
            Value::Array(vec![Value::Int(0), Value::Int(-1)]),
            Value::Array(vec![Value::Int(0), Value::Int(i64::MAX)]),
            Value::Array(vec![Value::Int(2), Value::Int(-1)]),
            Value::Array(vec![Value::Int(3), Value::Nil]),
            Value::Array(vec![Value::Int(3), text(b"\xff")]),
            Value::Array(vec![Value::Int(-1)]),
            Value::Array(vec![Value::Int(6)]),
        ] {
            let error = acquisition(value.clone()).expect_err("no acquisition");
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{value:?}");
        }
        for value in [
            vec![Value::Nil],
            vec![text(b"R"), text(b"short")],
            vec![
                text(b"R"),
                text(&[1; 32]),
                Value::Int(1),
                Value::Nil,
                Value::Int(5),
            ],
            vec![
                text(b"D"),
                text(&[1; 32]),
                Value::Int(1),
                Value::Nil,
                Value::Int(5),
            ],
            vec![
                text(b"X"),
                text(&[1; 32]),
                Value::Int(1),
                Value::Int(1),
                Value::Int(5),
            ],
        ] {
            let error = stored_record(Value::Array(value.clone())).expect_err("no record");
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{value:?}");
        }
    }
}
