//! What a request asks for, as one digest: the same key with another fingerprint is a mismatch.
//!
//! SHA-256 over these parts, each with its length, under a versioned domain:
//!
//! 1. the method;
//! 2. the path, in full and as it was sent;
//! 3. the query, split at `&` and its pairs sorted as bytes, so that the order in which a client's library
//!    writes a map does not matter. Nothing is decoded or dropped: `%41` and `A` differ, so do `a` and `a=`,
//!    and `/x` and `/x?`;
//! 4. the media type of `Content-Type` in lower case, without parameters: neither the spelling of a charset
//!    nor a multipart boundary, which is new with each attempt, counts;
//! 5. the chosen headers, in the order of their names: for each the number of its lines and every value;
//! 6. where no scope is configured, a digest of `Authorization`, so that another caller's key is a mismatch
//!    and never a replay;
//! 7. the body: its bytes, or its meaning with [`FingerprintRule::json`].
//!
//! # Caveats
//!
//! * A retry must send the same bytes. A client that writes a time stamp or a random boundary into the body
//!   of each attempt gets a mismatch; a multipart body does so unless its boundary is fixed.
//! * Because the pairs of the query are sorted as a whole, `a=1&a=2` and `a=2&a=1` are the same request.
//! * Requests that are retried across a change of the rule are mismatches.

use std::fmt;

use http::{HeaderMap, Method, header::CONTENT_TYPE};

use crate::digest::{Framed, Hex};

mod json;

/// The digest of what a request asks for. See the [module documentation](self).
///
/// `Debug` shows its first eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// What a fingerprint is made of.
///
/// ```
/// use idempotent_runtime::FingerprintRule;
///
/// static RULE: FingerprintRule = FingerprintRule::new().headers(&["x-currency"]).json();
/// # let _ = RULE;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
// Four independent switches, each named by the method that sets it.
#[allow(clippy::struct_excessive_bools)]
pub struct FingerprintRule {
    headers: &'static [&'static str],
    json: bool,
    ignore_query: bool,
    ignore_body: bool,
    ignore_content_type: bool,
}

impl FingerprintRule {
    /// Method, path, query, media type and the bytes of the body.
    pub const fn new() -> Self {
        Self {
            headers: &[],
            json: false,
            ignore_query: false,
            ignore_body: false,
            ignore_content_type: false,
        }
    }

    /// Also the values of these headers, named in any case and order; a second call replaces the list.
    pub const fn headers(mut self, names: &'static [&'static str]) -> Self {
        self.headers = names;
        self
    }

    /// Compares bodies by what their JSON means instead of by their bytes.
    ///
    /// White space, the order of an object's members, the escapes in strings and the spelling of numbers do
    /// not count: `{"a":1,"b":2}` and `{ "b": 2.0, "\u0061": 1e0 }` are the same. Numbers are compared as
    /// exact decimals and never rounded. A body that is not JSON, or is nested deeper than 128 levels, is
    /// compared by its bytes.
    pub const fn json(mut self) -> Self {
        self.json = true;
        self
    }

    /// The query does not count.
    pub const fn ignore_query(mut self) -> Self {
        self.ignore_query = true;
        self
    }

    /// The body does not count.
    pub const fn ignore_body(mut self) -> Self {
        self.ignore_body = true;
        self
    }

    /// The media type does not count.
    pub const fn ignore_content_type(mut self) -> Self {
        self.ignore_content_type = true;
        self
    }
}

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

/// How the body was compared; the tags keep the kinds apart.
const BODY_IGNORED: u8 = 0;
const BODY_RAW: u8 = 1;
const BODY_JSON: u8 = 2;

/// The fingerprint of a request.
///
/// `caller` is the digest of `Authorization` ([`Digester::caller`](crate::scope::Digester::caller)) where
/// no scope is configured and the header is there.
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
    write_headers(&mut parts, headers, rule.headers);
    parts.optional(caller);
    write_body(&mut parts, body, rule);
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

fn write_headers(parts: &mut Framed, headers: &HeaderMap, names: &[&str]) {
    let mut names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
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
