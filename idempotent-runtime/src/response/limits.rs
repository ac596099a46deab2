//! How large a response may be to be stored.

use std::{error::Error, fmt};

/// How large a response may be to be stored. One that exceeds a limit is not stored at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Each is a maximum, as the options that set them are.
#[allow(clippy::struct_field_names)]
pub(crate) struct ResponseLimits {
    /// Bytes of body: 1 MiB unless configured.
    pub(crate) max_body: usize,
    /// Header lines, without those that are never stored: 64 unless configured.
    pub(crate) max_headers: usize,
    /// Bytes of names and values of these lines: 16 KiB unless configured.
    pub(crate) max_header_bytes: usize,
}

/// Why a response cannot be stored. The record becomes a tombstone: its request never executes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotStorable {
    /// The body is larger than the route's `max_response`.
    BodyTooLarge,
    /// There are more header lines than the engine's `max_response_headers`.
    TooManyHeaders,
    /// The header lines are larger than the engine's `max_response_header_bytes`.
    HeadersTooLarge,
    /// The status is below 200: no answer ends with it. Only of a response that an operator gives.
    NotFinal,
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
            Self::TooManyHeaders => "the response has more headers than `max_response_headers`",
            Self::HeadersTooLarge => {
                "the response headers are larger than `max_response_header_bytes`"
            }
            Self::NotFinal => "the status is below 200, and no answer ends with it",
        })
    }
}

impl Error for NotStorable {}
