//! What operators do: records that are forgotten, and a stream of their acts.
//!
//! The stream is the key `audit` behind the prefix, and keeps about the newest 100,000 events.

use std::time::{Duration, SystemTime};

use redis::Value;

use super::{
    RedisStore,
    error::store_error,
    reply::applied,
    script::{Call, unreadable, write},
};
use crate::store::{
    admin::{Administrable, Event, Kept, Seen},
    erased::Operation,
    error::StoreError,
    record::Write,
};

/// About how many events are kept.
const MAX_EVENTS: &[u8] = b"100000";

impl Administrable for RedisStore {
    fn append<'a>(&'a self, event: &'a Event) -> Operation<'a, ()> {
        Box::pin(async move {
            let (stream, event) = (self.0.names.audit(), event.to_json());
            let arguments: [&[u8]; 2] = [event.as_bytes(), MAX_EVENTS];
            let call = self.0.scripts.append.call(&stream, &arguments);
            write(&self.once(&call).await?).map(drop)
        })
    }

    fn events(&self, limit: usize) -> Operation<'_, Vec<Kept>> {
        Box::pin(async move {
            if limit == 0 {
                return Ok(vec![]);
            }
            let (stream, limit) = (self.0.names.audit(), limit.to_string());
            let call = self.0.scripts.events.call(&stream, &[limit.as_bytes()]);
            let Value::Array(entries) = self.run(&call).await? else {
                return Err(unreadable("the stream of events is none"));
            };
            Ok(entries.iter().filter_map(kept).collect())
        })
    }

    fn forget<'a>(&'a self, record: &'a Seen) -> Operation<'a, Write> {
        Box::pin(async move {
            let (name, attempt) = (self.record(&record.key), record.attempt.to_string());
            let arguments: [&[u8]; 2] = [record.fingerprint.as_bytes(), attempt.as_bytes()];
            let call = self.0.scripts.forget.call(&name, &arguments);
            write(&self.once(&call).await?)
        })
    }
}

impl RedisStore {
    /// Runs a script that must not be executed twice by itself: the operator sees the error, and looks.
    async fn once(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        match &self.0.confirm {
            Some(confirm) => confirm.run(call, applied, false).await,
            None => self.0.link.run(call, false).await.map_err(store_error),
        }
    }
}

/// An entry of the stream: its ID, which begins with the server's time in milliseconds, and its fields.
fn kept(entry: &Value) -> Option<Kept> {
    let Value::Array(entry) = entry else {
        return None;
    };
    let [Value::BulkString(id), Value::Array(fields)] = &entry[..] else {
        return None;
    };
    let [_, Value::BulkString(event)] = &fields[..] else {
        return None;
    };
    let (millis, _) = std::str::from_utf8(id).ok()?.split_once('-')?;
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis.parse().ok()?);
    Some(Kept::new(
        at,
        Event::from_json(std::str::from_utf8(event).ok()?)?,
    ))
}
