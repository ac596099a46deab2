//! How much of a response is stored.

use std::{error::Error, fmt};

/// How much of a response is stored; more of it cannot be stored at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Each is the maximum of something, and the options that set them say so too.
#[allow(clippy::struct_field_names)]
pub(crate) struct ResponseLimits {
    /// Bytes of body: 1 MiB unless configured.
    pub(crate) max_body: usize,
    /// Header lines, counted without those that are left out: 64 unless configured.
    pub(crate) max_headers: usize,
    /// Bytes of names and values of these lines: 16 KiB unless configured.
    pub(crate) max_header_bytes: usize,
}

/// Why a response cannot be stored. The record becomes a tombstone: executed, never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotStorable {
    /// The body is larger than the route's `max_response`.
    BodyTooLarge,
    /// There are more header lines than are stored.
    TooManyHeaders,
    /// The header lines are larger than what is stored of them.
    HeadersTooLarge,
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
