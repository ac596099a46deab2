//! What requests say: queries, IDs and JSON. No error repeats a value of a body, which may be a key.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};

use super::error::Refusal;
use crate::{
    hex,
    scope::StoreKey,
    store::inspect::{Cursor, KeyPrefix, Query, StateKind},
    view,
};

/// The largest body: a response of the default limit, each byte of it written as an escape of six letters, and more.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// Refuses a body that does not say that it is JSON: a form of another site's page can send one that does not.
pub(super) fn is_json(parts: &Parts) -> Result<(), Refusal> {
    let value = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = value
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if media_type.is_some_and(|name| name.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Refusal::not_json())
}

/// The JSON of a body.
pub(super) async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let collected = Limited::new(body, MAX_BODY).collect().await;
    let bytes = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Refusal::too_large(MAX_BODY)
        } else {
            Refusal::invalid("the body broke off")
        }
    })?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|error| {
        // Its text would repeat what it found.
        let (line, column) = (error.line(), error.column());
        let what = if error.is_data() {
            "the body does not have the members that this route takes"
        } else {
            "the body is not JSON"
        };
        Refusal::invalid(format!("{what}, at line {line}, column {column}"))
    })
}

/// A whole ID: changes take no other.
pub(super) fn whole_id(text: &str) -> Result<StoreKey, Refusal> {
    let id: KeyPrefix = text.parse()?;
    if id.lowest() == id.highest() {
        return Ok(id.lowest());
    }
    Err(Refusal::invalid("a change needs all 64 digits of the ID"))
}

/// What is to be listed, and how far the store is scanned for it.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) query: Query,
    pub(super) limit: usize,
    pub(super) max_scan: u64,
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            query: Query::new(),
            limit: 100,
            max_scan: 100_000,
        }
    }
}

impl Listing {
    /// The most records that one request looks at.
    const MAX_SCAN: u64 = 1_000_000;

    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut listing = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                // As a form sends a field that was left empty.
                "state" | "endpoint" | "older_than" | "after" if value.is_empty() => {}
                "state" => listing.query = listing.query.state(state(&value)?),
                "endpoint" => listing.query = listing.query.endpoint(&value),
                "older_than" => listing.query = listing.query.older_than(age(&value)?),
                "after" => listing.query = listing.query.after(Some(Cursor::new(&*value))),
                "limit" => listing.limit = number("limit", &value, Query::MAX_LIMIT)?,
                "max_scan" => listing.max_scan = number("max_scan", &value, Self::MAX_SCAN)?,
                _ => {
                    let names =
                        "`state`, `endpoint`, `older_than`, `limit`, `after` and `max_scan`";
                    return Err(Refusal::invalid(format!("the query takes {names} only")));
                }
            }
        }
        Ok(listing)
    }
}

/// The `limit` of a query that takes nothing else.
pub(super) fn limit(query: &str) -> Result<usize, Refusal> {
    let mut limit = 100;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "limit" {
            return Err(Refusal::invalid("the query takes `limit` only"));
        }
        limit = number("limit", &value, Query::MAX_LIMIT)?;
    }
    Ok(limit)
}

fn state(name: &str) -> Result<StateKind, Refusal> {
    use StateKind::{Completed, InFlight, Tombstone, Unknown};

    let kinds = [InFlight, Unknown, Completed, Tombstone];
    let found = kinds.into_iter().find(|kind| view::state(*kind) == name);
    found.ok_or_else(|| {
        let names = kinds.map(view::state).join("`, `");
        Refusal::invalid(format!("`state` is one of `{names}`"))
    })
}

fn age(text: &str) -> Result<Duration, Refusal> {
    humantime::parse_duration(text)
        .map_err(|_| Refusal::invalid("`older_than` is a time as `10m`, `2h` or `3days`"))
}

/// A number from 1 to `most`.
fn number<N>(name: &'static str, text: &str, most: N) -> Result<N, Refusal>
where
    N: Copy + std::str::FromStr + PartialOrd + From<u8> + std::fmt::Display,
{
    let number = text.parse().ok();
    let within = number.filter(|number| *number >= N::from(1) && *number <= most);
    within.ok_or_else(|| Refusal::invalid(format!("`{name}` is a number from 1 to {most}")))
}

/// What the client of a record sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sent {
    pub(super) endpoint: String,
    #[serde(default)]
    pub(super) caller: Option<String>,
    pub(super) key: String,
}

/// An act, as a person asks for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    reason: String,
    #[serde(default)]
    pub(super) response: Option<Answer>,
}

impl Order {
    /// Why, for the audit.
    pub(super) fn reason(&self) -> Result<&str, Refusal> {
        let reason = self.reason.trim();
        if reason.is_empty() {
            return Err(Refusal::invalid(
                "`reason` is empty: say why, for the audit",
            ));
        }
        Ok(reason)
    }
}

/// A response that retries are to get.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    body_is_hexadecimal: bool,
}

impl Answer {
    pub(super) fn into_response(self) -> Result<Response<Bytes>, Refusal> {
        let body = if self.body_is_hexadecimal {
            let bytes = hex::decode_all(self.body.as_bytes());
            bytes.ok_or_else(|| Refusal::invalid("`body` is not hexadecimal"))?
        } else {
            self.body.into_bytes()
        };
        let mut response = Response::new(Bytes::from(body));
        let status = StatusCode::from_u16(self.status).ok();
        // One below 200 is not the end of an exchange, and cannot be replayed.
        *response.status_mut() = status
            .filter(|status| (200..600).contains(&status.as_u16()))
            .ok_or_else(|| Refusal::invalid("`status` is a number from 200 to 599"))?;
        for (name, value) in &self.headers {
            let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value))
            else {
                return Err(Refusal::invalid("one of `headers` is no header"));
            };
            response.headers_mut().append(name, value);
        }
        Ok(response)
    }
}
