//! What a client did wrong with its key.

use std::{error::Error, fmt};

/// Why there is no valid key. The texts say what to do and never contain what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no such header line.
    Missing,
    /// There is more than one header line.
    Multiple,
    /// The key is empty or blank.
    Empty,
    /// The key is longer than the rules allow.
    TooLong {
        /// Its length in bytes, after decoding.
        len: usize,
        /// The longest that is accepted.
        max: usize,
    },
    /// The key contains a byte that is not allowed where it stands.
    BadCharacter,
    /// The key begins with a quote and is not one String of RFC 9651.
    Syntax,
    /// The key is bare and the route is strict.
    NotAString,
    /// The key is not a UUID, or is the nil or the max UUID, and the route asks for one.
    NotAUuid,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => {
                "there is no idempotency key: send one that is unique to this operation, and the \
                 same one with every retry"
            }
            Self::Multiple => "the request has more than one line of this header: send exactly one",
            Self::Empty => "the key is empty: send 1 to 255 characters, such as a random UUID",
            Self::TooLong { len, max } => {
                return write!(f, "the key is {len} bytes long: send at most {max}");
            }
            Self::BadCharacter => {
                "the key contains a character that is not allowed: send visible ASCII, and put a \
                 key with a space, quote, backslash, comma or semicolon in double quotes"
            }
            Self::Syntax => {
                "the key begins with a double quote but is not a structured-field string (RFC \
                 9651): end it with a double quote, and put a backslash before each double quote \
                 and backslash in it"
            }
            Self::NotAString => {
                "the key is not in double quotes: send it as a structured-field string (RFC 9651)"
            }
            Self::NotAUuid => {
                "the key is not a UUID: send a random one in the form 8-4-4-4-12, in hexadecimal \
                 digits, not all of them 0 or f"
            }
        })
    }
}

impl Error for KeyError {}
