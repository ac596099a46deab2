//! What a request asks for, as one digest: the same key with another fingerprint is a mismatch.
//!
//! [`FingerprintRule`] says what counts. All of that goes into one SHA-256 in a fixed order, framed so that no
//! value can be taken for another ([`Framed`]). The body is hashed in place, without a copy.

use std::fmt;

use http::{
    HeaderName, HeaderValue, Method,
    header::{
        CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, GetAll, IF_MATCH, IF_MODIFIED_SINCE,
        IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
    },
};

use crate::{digest::Framed, header_sketch::SketchedHeaders, hex::Hex, names::HeaderNames};

mod json;
mod media;
mod multipart;
mod pairs;
mod pointer;
mod rule;
#[cfg(test)]
mod tests;

use media::MediaType;
pub use pointer::{InvalidPointer, JsonPointer};
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

    /// The digest of the credentials that the request came with, if they are part of its identity: a scope says who calls
    /// otherwise. It is another one for each record, so that two records do not show whether one caller made both.
    #[must_use]
    pub fn caller_digest(&self) -> Option<[u8; 8]> {
        let mut caller = [0; 8];
        caller.copy_from_slice(&self.0[CALLER_FROM..]);
        (caller != [0; 8]).then_some(caller)
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
const BODY_FORM: u8 = 3;
const BODY_MULTIPART: u8 = 4;

/// What a client expects to find. With another expectation a request asks for something else (RFC 9110, section 13.1).
const PRECONDITIONS: [HeaderName; 4] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

/// What the fingerprints of all requests with this method begin with.
pub(crate) fn begin(rule: &FingerprintRule, method: &Method) -> Framed {
    let domain = match rule.function {
        Some(_) => "idempotent/fingerprint-by-function/v2",
        None => "idempotent/fingerprint/v2",
    };
    let mut parts = Framed::sha256(domain);
    parts.part(method.as_str().as_bytes());
    parts
}

/// The fingerprint of a request, [begun](begin) already.
///
/// `caller` is the digest of the credentials ([`Digester::caller`](crate::scope::Digester::caller)) if no scope says who
/// calls and the request has any.
pub(crate) fn fingerprint(
    rule: &FingerprintRule,
    mut parts: Framed,
    path: &str,
    query: Option<&str>,
    headers: SketchedHeaders<'_>,
    caller: Option<&[u8; 32]>,
    body: &[u8],
) -> Fingerprint {
    parts.part(path.as_bytes());
    pairs::write_query(&mut parts, query, rule);
    let media_type = media_type(headers);
    write_content_type(&mut parts, headers, media_type.as_ref(), rule);
    for name in &PRECONDITIONS {
        write_lines(&mut parts, headers.all(name).as_ref());
    }
    write_headers(&mut parts, headers, &rule.headers);
    parts.optional(caller.map(<[u8; 32]>::as_slice));
    write_body(&mut parts, body, media_type.as_ref(), rule);
    if !rule.ignore_body {
        write_what_the_bytes_are(&mut parts, headers);
    }
    Fingerprint::new(parts.finish(), caller)
}

/// The fingerprint of a request of which a function of the application says what it asks for.
pub(crate) fn fingerprint_by_function(
    mut parts: Framed,
    path: &str,
    caller: Option<&[u8; 32]>,
    asked: &[u8],
) -> Fingerprint {
    parts.part(path.as_bytes());
    parts.optional(caller.map(<[u8; 32]>::as_slice));
    parts.part(asked);
    Fingerprint::new(parts.finish(), caller)
}

/// The media type of the body, which decides how it may be read. Two lines say nothing reliable.
fn media_type(headers: SketchedHeaders<'_>) -> Option<MediaType<'_>> {
    let mut lines = headers.lines(&CONTENT_TYPE);
    let line = lines.next().filter(|_| lines.next().is_none())?;
    MediaType::parse(line.as_bytes())
}

/// `only` is what the line says, if there is one only.
fn write_content_type(
    parts: &mut Framed,
    headers: SketchedHeaders<'_>,
    only: Option<&MediaType<'_>>,
    rule: &FingerprintRule,
) {
    if rule.ignore_content_type {
        return parts.count(0);
    }
    if let Some(media_type) = only {
        parts.count(1);
        return media_type.write(parts);
    }
    parts.count(headers.lines(&CONTENT_TYPE).count());
    for line in headers.lines(&CONTENT_TYPE) {
        media::write(parts, line.as_bytes());
    }
}

fn write_lines(parts: &mut Framed, lines: Option<&GetAll<'_, HeaderValue>>) {
    let lines = || lines.into_iter().flat_map(GetAll::iter);
    parts.count(lines().count());
    for line in lines() {
        parts.part(line.as_bytes());
    }
}

fn write_headers(parts: &mut Framed, headers: SketchedHeaders<'_>, names: &HeaderNames) {
    let mut names: Vec<String> = names.iter().map(str::to_ascii_lowercase).collect();
    names.sort_unstable();
    names.dedup();
    parts.count(names.len());
    for name in names {
        parts.part(name.as_bytes());
        write_lines(parts, Some(&headers.map.get_all(&name)));
    }
}

/// Writes how the body is coded, and which part of a whole it is, where the request says so (RFC 9110, sections 8.4 and
/// 14.5): the same bytes ask for something else then. Of requests that say nothing, nothing is written.
fn write_what_the_bytes_are(parts: &mut Framed, headers: SketchedHeaders<'_>) {
    let lines = headers.lines(&CONTENT_ENCODING);
    let codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let codings = codings.map(|coding| coding.trim_ascii().to_ascii_lowercase());
    let is_coding = |coding: &Vec<u8>| !coding.is_empty() && coding != b"identity";
    let codings: Vec<_> = codings.filter(is_coding).collect();
    if !codings.is_empty() {
        parts.part(CONTENT_ENCODING.as_str().as_bytes());
        parts.count(codings.len());
        for coding in &codings {
            parts.part(coding);
        }
    }
    if headers.contains(&CONTENT_RANGE) {
        parts.part(CONTENT_RANGE.as_str().as_bytes());
        write_lines(parts, headers.all(&CONTENT_RANGE).as_ref());
    }
}

/// Writes the body as the rule and its media type say, or by its bytes if it cannot be read that way.
fn write_body(
    parts: &mut Framed,
    body: &[u8],
    media_type: Option<&MediaType<'_>>,
    rule: &FingerprintRule,
) {
    if rule.ignore_body {
        return parts.tag(BODY_IGNORED);
    }
    if let Some(media_type) = media_type {
        let read = if rule.json && media_type.is_json() {
            json::digest(body, &rule.ignored_pointers).map(|meaning| (BODY_JSON, meaning))
        } else if let Some(boundary) = media_type.boundary() {
            multipart::digest(body, boundary).map(|meaning| (BODY_MULTIPART, meaning))
        } else {
            None
        };
        if let Some((tag, meaning)) = read {
            parts.tag(tag);
            return parts.part(&meaning);
        }
        if rule.form && media_type.is_form() && pairs::write_form(parts, BODY_FORM, body) {
            return;
        }
    }
    parts.tag(BODY_RAW);
    parts.part(body);
}
