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
/// The first 24 bytes are of a SHA-256 over all of it, the caller included; the last 8 are of the caller's digest alone,
/// or zero if no caller counts. So two fingerprints show whether they differ in the caller.
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

    fn new(mut digest: [u8; 32], caller: Option<&[u8; 32]>) -> Self {
        let of_caller = caller.map_or(&[0; 32], |caller| caller);
        digest[CALLER_FROM..].copy_from_slice(&of_caller[..32 - CALLER_FROM]);
        Self(digest)
    }

    /// In which respect a request differs from the one with the fingerprint `first`.
    pub(crate) fn difference(&self, first: &Self) -> Option<Difference> {
        if self == first {
            None
        } else if self.0[CALLER_FROM..] == first.0[CALLER_FROM..] {
            Some(Difference::Request)
        } else {
            Some(Difference::Caller)
        }
    }
}

/// In which respect a request differs from the first one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// It asks for something else.
    Request,
    /// It is another caller's.
    Caller,
}

/// Where the caller's part of a fingerprint begins. What is before it has 192 bits: to find two requests of one
/// fingerprint takes 2^96 attempts.
const CALLER_FROM: usize = 24;

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
/// `caller` is the digest of the credentials ([`Digester::caller`](crate::scope::Digester::caller)) if no scope says who
/// calls and the request has any.
pub(crate) fn fingerprint(
    rule: &FingerprintRule,
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    caller: Option<&[u8; 32]>,
    body: &[u8],
) -> Fingerprint {
    let mut parts = Framed::sha256("idempotent/fingerprint/v2");
    parts.part(method.as_str().as_bytes());
    parts.part(path.as_bytes());
    write_query(&mut parts, query.filter(|_| !rule.ignore_query));
    write_media_type(&mut parts, headers, rule.ignore_content_type);
    write_headers(&mut parts, headers, &rule.headers);
    parts.optional(caller.map(<[u8; 32]>::as_slice));
    write_body(&mut parts, body, rule);
    Fingerprint::new(parts.finish(), caller)
}

/// The fingerprint of a request of which a function of the application says what it asks for.
pub(crate) fn fingerprint_by_function(
    method: &Method,
    path: &str,
    caller: Option<&[u8; 32]>,
    asked: &[u8],
) -> Fingerprint {
    let mut parts = Framed::sha256("idempotent/fingerprint-by-function/v2");
    parts.part(method.as_str().as_bytes());
    parts.part(path.as_bytes());
    parts.optional(caller.map(<[u8; 32]>::as_slice));
    parts.part(asked);
    Fingerprint::new(parts.finish(), caller)
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
