//! What the scripts return, as the contract says it.

use std::time::{Duration, SystemTime};

use redis::Value;

use super::script::{Reply, unreadable};
use crate::{
    fingerprint::Fingerprint,
    response::StoredResponse,
    store::{
        error::StoreError,
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

/// The answer of the script for get.
pub(super) fn stored_record(value: Value) -> Result<Option<Record>, StoreError> {
    let mut reply = Reply::new(value)?;
    if reply.is_empty() {
        return Ok(None);
    }
    let state = reply.bytes();
    let fingerprint = fingerprint(&mut reply)?;
    let attempt = reply.number("the record has no attempt")?;
    let lease = reply.number("").ok().map(Duration::from_millis);
    // Negative if the expiry of the key was removed by hand.
    let left: i64 = reply.number("the record has no expiry")?;
    let expires_in = u64::try_from(left).map_or(Duration::MAX, Duration::from_millis);
    let trace_id = reply.bytes().and_then(|bytes| bytes[..].try_into().ok());
    let response = reply.bytes();
    let state = match (state.as_deref(), lease) {
        (Some(b"R"), Some(remaining)) => RecordState::InFlight { remaining },
        (Some(b"D"), _) => RecordState::Completed(outcome(response)?),
        (Some(b"T"), _) => RecordState::Completed(Outcome::Tombstone),
        _ => {
            return Err(unreadable(
                "unrecognised state (written by a newer version?)",
            ));
        }
    };
    let trace_id = trace_id.and_then(TraceId::from_bytes);
    let endpoint = reply.bytes().filter(|endpoint| !endpoint.is_empty());
    let endpoint = endpoint.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mode = mode(&mut reply);
    let mut time = || {
        let millis = reply.number("").ok().map(Duration::from_millis)?;
        SystemTime::UNIX_EPOCH.checked_add(millis)
    };
    let (created, completed) = (time(), time());
    let record = Record::new(fingerprint, attempt, state, expires_in, trace_id);
    let record = record.mode(mode).endpoint(endpoint);
    Ok(Some(record.times(created, completed)))
}

fn outcome(stored: Option<bytes::Bytes>) -> Result<Outcome, StoreError> {
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
