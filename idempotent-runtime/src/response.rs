//! A response as it is stored: what is kept of it, and in which form.
//!
//! # What is kept
//!
//! Status, headers and body, so that a replay is the same answer byte by byte. Some headers belong to one
//! exchange or to one client and are left out:
//!
//! 1. hop-by-hop headers, and those that `Connection` names;
//! 2. `Set-Cookie`, and the headers of authentication: a replay must not hand out a session;
//! 3. `Date` and `Content-Length`, which the server writes for each response;
//! 4. ids of traces and requests: they name the execution, not the replay.
//!
//! Repeated headers keep their order and number.
//!
//! # The form
//!
//! ```text
//! version  u8     1
//! status   u16    all numbers are big-endian
//! headers  u16    how many follow
//!          u16 length of the name, u32 length of the value, name, value
//! body     u64    its length, then its bytes, then nothing
//! ```
//!
//! It is one allocation of exactly this size, shared by all clones: reading it back copies neither values
//! nor body. [`StoredResponse::from_bytes`] accepts nothing that breaks the form; whatever a store returns, it
//! neither panics nor allocates more than the bytes justify.
//!
//! Records live as long as their time to live, and several versions of a service read them while it is
//! deployed. A new form gets a new version byte, and the old one stays readable.

use std::{error::Error, fmt};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, response::Parts};

mod codec;
mod filter;

/// A response in the form in which it is stored. Clones share the bytes.
///
/// `Debug` shows its status and size: bodies are not for logs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StoredResponse(Bytes);

/// How much of a response is stored; more of it cannot be stored at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseLimits {
    /// Bytes of body: 1 MiB unless configured.
    pub max_body: usize,
    /// Header lines, counted without those that are left out: 64 unless configured.
    pub max_headers: usize,
    /// Bytes of names and values of these lines: 16 KiB unless configured.
    pub max_header_bytes: usize,
}

/// Why a response cannot be stored. The record becomes a tombstone: executed, never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotStorable {
    /// The body is larger than [`ResponseLimits::max_body`].
    BodyTooLarge,
    /// There are more header lines than [`ResponseLimits::max_headers`].
    TooManyHeaders,
    /// The header lines are larger than [`ResponseLimits::max_header_bytes`].
    HeadersTooLarge,
}

/// Bytes that are no stored response: damaged, or written by a version that this one does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptResponse(codec::Flaw);

impl StoredResponse {
    /// Stores what the limits permit of a response.
    ///
    /// # Errors
    ///
    /// If the response is over one of the limits, which are checked before anything is copied.
    pub fn encode(head: &Parts, body: &[u8], limits: &ResponseLimits) -> Result<Self, NotStorable> {
        if body.len() > limits.max_body {
            return Err(NotStorable::BodyTooLarge);
        }
        let filter = filter::Filter::new(&head.headers);
        let kept = || head.headers.iter().filter(|(name, _)| filter.keeps(name));
        codec::encode(head.status, kept, body, limits).map(Self)
    }

    /// A response as a store kept it.
    ///
    /// # Errors
    ///
    /// If the bytes are not in the form that [`encode`](Self::encode) writes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, CorruptResponse> {
        let mut reader = codec::Reader::new(&bytes)?;
        while reader.header()?.is_some() {}
        reader.body()?;
        Ok(Self(bytes))
    }

    /// The bytes to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The status, the stored headers and the body. Values and body share the stored bytes.
    ///
    /// # Errors
    ///
    /// Never for a value of this type, which was checked when it was made; it is an error and not a panic
    /// because the bytes may come from another machine.
    pub fn decode(&self) -> Result<(StatusCode, HeaderMap, Bytes), CorruptResponse> {
        let mut reader = codec::Reader::new(&self.0)?;
        let mut headers = HeaderMap::with_capacity(reader.headers_left());
        while let Some((name, value)) = reader.header()? {
            headers
                .try_append(name, value)
                .map_err(|_| codec::Flaw::Header)?;
        }
        Ok((reader.status(), headers, reader.body()?))
    }
}

impl fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = codec::Reader::new(&self.0).map(|reader| reader.status().as_u16());
        f.debug_struct("StoredResponse")
            .field("status", &status.unwrap_or_default())
            .field("bytes", &self.0.len())
            .finish()
    }
}

impl Default for ResponseLimits {
    fn default() -> Self {
        Self {
            max_body: 1024 * 1024,
            max_headers: 64,
            max_header_bytes: 16 * 1024,
        }
    }
}

impl fmt::Display for NotStorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BodyTooLarge => "the response body is larger than `max_response`",
            Self::TooManyHeaders => "the response has more headers than are stored",
            Self::HeadersTooLarge => "the response headers are larger than what is stored of them",
        })
    }
}

impl Error for NotStorable {}

impl From<codec::Flaw> for CorruptResponse {
    fn from(flaw: codec::Flaw) -> Self {
        Self(flaw)
    }
}

impl fmt::Display for CorruptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stored response cannot be read: {}", self.0)
    }
}

impl Error for CorruptResponse {}
