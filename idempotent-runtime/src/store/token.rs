//! The identity of a lease, and of the trace that executed under it.

use std::fmt;

use crate::hex::{self, Hex};

/// The random identity of a lease. Made by the engine once per logical acquire; compared for equality only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; 16]);

impl Token {
    /// A fresh random token: 128 bits from the thread's generator, seeded by the operating system.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// A token from the bytes that a store kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}…)", Hex(&self.0[..4]))
    }
}

/// A W3C trace id: sixteen bytes, not all zero (Trace Context, section 3.2.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// The trace id in a `traceparent` header value; `None` unless the value has the form of the standard.
    #[must_use]
    pub fn from_traceparent(value: &[u8]) -> Option<Self> {
        // version "-" trace-id "-" parent-id "-" flags; later versions may append more after the flags.
        let bytes: &[u8; 55] = value.get(..55)?.try_into().ok()?;
        let later = value.len() > 55;
        // The standard allows lower-case hexadecimal only.
        if bytes[..35].iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let [version] = hex::decode(&bytes[..2])?;
        if version == 0xff || (version == 0 && later) || (later && value[55] != b'-') {
            return None;
        }
        if bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
            return None;
        }
        Self::from_bytes(hex::decode(&bytes[3..35])?)
    }

    /// A trace id from the bytes that a store kept; `None` for all zeros, which the standard forbids.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_gives_its_trace_id() {
        let id =
            TraceId::from_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
                .unwrap();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn malformed_traceparents_give_none() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceId::from_traceparent(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn tokens_differ_and_debug_shows_their_first_bytes_only() {
        assert_ne!(Token::random(), Token::random());
        assert_eq!(
            format!("{:?}", Token::from_bytes([0xab; 16])),
            "Token(abababab…)"
        );
    }
}
