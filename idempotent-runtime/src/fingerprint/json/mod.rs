//! The meaning of a JSON text, as a digest.
//!
//! Two texts have the same digest exactly if they mean the same value:
//!
//! 1. Arrays are equal if their elements are, in order.
//! 2. Objects are equal if their members are; members are sorted by name in the order of RFC 8785 (UTF-16
//!    code units). Members of the same name, which JSON permits, keep their order.
//! 3. Strings are equal if they decode to the same characters. There is no Unicode normalisation.
//! 4. Numbers are equal if they are the same decimal number: `1`, `1.0` and `10e-1` are, so are `-0` and
//!    `0`; `9007199254740992` and `9007199254740993` are not. RFC 8785 rounds to a binary double and would
//!    make two amounts of money equal.
//!
//! What the pointers of a rule point to is left out: the member with its name, or the element.
//!
//! Not every text has a meaning here: [`digest`] returns `None` for a text that `serde_json` does not accept
//! (that includes invalid UTF-8 and escapes of lone surrogates), for one with more than
//! [`MAX_DEPTH`](tape::MAX_DEPTH) levels, more than [`MAX_VALUES`](tape::MAX_VALUES) values or an exponent of more than 38
//! digits, and for one of 4 GiB or more. Its caller then falls back to the bytes, under another tag.
//!
//! # Cost
//!
//! Linear in the length of the text, except for sorting the member names. `serde_json` first checks the syntax;
//! one scan then records the values on a tape, twelve bytes for each; one walk along the tape feeds the hash.
//! Numbers are never expanded: `1e999999999` costs eleven bytes.
//!
//! That takes at most 20 times the memory of a text of up to 2 MiB, and for a longer one 40 MiB and what its escaped names are
//! decoded to; `tests/cost` measures the worst texts. It happens within one poll, so not more often at a time than there
//! are threads.

use serde::de::IgnoredAny;

use crate::{digest::Framed, names::Texts};

mod number;
mod tape;
#[cfg(test)]
mod tests;

use tape::Tape;

/// The digest of the value that this text means, without what these pointers point to, or `None` if it has no meaning.
pub(super) fn digest(text: &[u8], ignored: &Texts) -> Option<[u8; 32]> {
    let text = std::str::from_utf8(text).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let tape = Tape::scan(text)?;
    let mut hash = Framed::sha256("idempotent/json/v1");
    let ignored: Vec<&str> = ignored.iter().collect();
    tape.feed(0, &ignored, &mut hash)?;
    Some(hash.finish())
}
