//! What a request asks for, as one digest: the same key with another fingerprint is a mismatch.
//!
//! [`FingerprintRule`] says what counts. All of that goes into one SHA-256 in a fixed order, framed so that no
//! value can be taken for another ([`Framed`]). The body is hashed in place, without a copy.

use std::fmt;

use http::{HeaderMap, Method, header::CONTENT_TYPE};

use crate::{
    digest::{Framed, Hex},
    names::HeaderNames,
};

mod json;
mod rule;
#[cfg(test)]
mod tests;

pub use rule::FingerprintRule;

/// The digest of what a request asks for. See [`FingerprintRule`] for what it is made of.
///
/// `Debug` shows its first eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// A fingerprint as a store kept it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to keep.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({}…)", Hex(&self.0[..8]))
    }
}

/// How the body is compared. The tags keep a digest of one kind from being equal to one of another.
const BODY_IGNORED: u8 = 0;
const BODY_RAW: u8 = 1;
const BODY_JSON: u8 = 2;

/// The fingerprint of a request.
///
/// `caller` is the digest of `Authorization` ([`Digester::caller`](crate::scope::Digester::caller)) if no scope
/// is configured and the request has the header.
pub(crate) fn fingerprint(
    rule: &FingerprintRule,
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    caller: Option<&[u8]>,
    body: &[u8],
) -> Fingerprint {
    let mut parts = Framed::sha256("idempotent/fingerprint/v1");
    parts.part(method.as_str().as_bytes());
    parts.part(path.as_bytes());
    write_query(&mut parts, query.filter(|_| !rule.ignore_query));
    write_media_type(&mut parts, headers, rule.ignore_content_type);
    write_headers(&mut parts, headers, &rule.headers);
    parts.optional(caller);
    write_body(&mut parts, body, rule);
    Fingerprint(parts.finish())
}

/// The fingerprint of a request of which a function of the application says what it asks for.
pub(crate) fn fingerprint_by_function(
    method: &Method,
    path: &str,
    caller: Option<&[u8]>,
    asked: &[u8],
) -> Fingerprint {
    let mut parts = Framed::sha256("idempotent/fingerprint-by-function/v1");
    parts.part(method.as_str().as_bytes());
    parts.part(path.as_bytes());
    parts.optional(caller);
    parts.part(asked);
    Fingerprint(parts.finish())
}

/// No query counts no pairs; an empty query counts one empty pair.
fn write_query(parts: &mut Framed, query: Option<&str>) {
    let mut pairs: Vec<&str> = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .collect();
    pairs.sort_unstable();
    parts.count(pairs.len());
    for pair in pairs {
        parts.part(pair.as_bytes());
    }
}

fn write_media_type(parts: &mut Framed, headers: &HeaderMap, ignore: bool) {
    let lines = headers.get_all(CONTENT_TYPE);
    let lines = || lines.iter().filter(|_| !ignore);
    parts.count(lines().count());
    for line in lines() {
        let line = line.as_bytes();
        let end = line
            .iter()
            .position(|byte| *byte == b';')
            .unwrap_or(line.len());
        parts.part(&line[..end].trim_ascii().to_ascii_lowercase());
    }
}

fn write_headers(parts: &mut Framed, headers: &HeaderMap, names: &HeaderNames) {
    let mut names: Vec<String> = names.iter().map(str::to_ascii_lowercase).collect();
    names.sort_unstable();
    names.dedup();
    parts.count(names.len());
    for name in names {
        let lines = headers.get_all(&name);
        parts.part(name.as_bytes());
        parts.count(lines.iter().count());
        for line in lines {
            parts.part(line.as_bytes());
        }
    }
}

fn write_body(parts: &mut Framed, body: &[u8], rule: &FingerprintRule) {
    if rule.ignore_body {
        return parts.tag(BODY_IGNORED);
    }
    if let Some(meaning) = rule.json.then(|| json::digest(body)).flatten() {
        parts.tag(BODY_JSON);
        parts.part(&meaning);
    } else {
        parts.tag(BODY_RAW);
        parts.part(body);
    }
}
