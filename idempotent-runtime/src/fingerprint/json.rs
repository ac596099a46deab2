//! The meaning of a JSON text, as a digest.
//!
//! Two texts have the same digest exactly if they are the same value:
//!
//! 1. Arrays are equal if their elements are, in order.
//! 2. Objects are equal if their members are; members are sorted by name in the order of RFC 8785 (UTF-16
//!    code units). Members of the same name, which JSON permits, keep their order.
//! 3. Strings are equal if they decode to the same characters. There is no Unicode normalisation.
//! 4. Numbers are equal if they are the same decimal number: `1`, `1.0` and `10e-1` are, so are `-0` and
//!    `0`; `9007199254740992` and `9007199254740993` are not. RFC 8785 rounds to a binary double and would
//!    make two amounts of money equal.
//!
//! Not every text has a meaning here: [`digest`] answers `None` for what `serde_json` does not accept
//! (that includes invalid UTF-8 and escapes of lone surrogates), for more than [`MAX_DEPTH`] levels, for a
//! power of ten with more than 38 digits, and for 4 GiB or more. Its caller falls back to the bytes, under
//! another tag.
//!
//! # Cost
//!
//! Linear in the text, but for the sorting of member names. `serde_json` first checks the syntax; one scan
//! then records the values on a tape, twelve bytes for each; one walk along the tape feeds the hash. Numbers
//! are never expanded: `1e999999999` costs eleven bytes.

use std::{borrow::Cow, cmp::Ordering};

use serde::de::IgnoredAny;

use crate::digest::Framed;

/// The deepest nesting that is compared by meaning: what `serde_json` itself accepts.
const MAX_DEPTH: usize = 128;

/// The digest of what this text means, or `None` if that is not defined.
pub(super) fn digest(text: &[u8]) -> Option<[u8; 32]> {
    let text = std::str::from_utf8(text).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let tape = Tape::scan(text)?;
    let mut hash = Framed::sha256("idempotent/json/v1");
    tape.feed(0, &mut hash)?;
    Some(hash.finish())
}

/// The values of a text in the order in which they begin.
struct Tape<'a> {
    text: &'a str,
    values: Vec<Value>,
}

/// A value, or the name of a member.
struct Value {
    /// Where its text begins. Its first byte says what it is.
    start: u32,
    /// Where its text ends; of arrays and objects, only the bracket.
    end: u32,
    /// The index on the tape of what follows after it and everything inside it.
    next: u32,
}

impl<'a> Tape<'a> {
    /// Records the values of a text whose syntax has been checked.
    ///
    /// The syntax is relied upon for the result, never for safety: a text that was not checked gives `None`
    /// or the tape of some other value.
    fn scan(text: &'a str) -> Option<Self> {
        u32::try_from(text.len()).ok()?;
        let bytes = text.as_bytes();
        let mut values: Vec<Value> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => at += 1,
                b'}' | b']' => {
                    let container = open.pop()?;
                    values[container].next = u32::try_from(values.len()).ok()?;
                    at += 1;
                }
                first => {
                    let end = match first {
                        b'{' | b'[' => at + 1,
                        b'"' => end_of_string(bytes, at)?,
                        _ => end_of_scalar(bytes, at),
                    };
                    if matches!(first, b'{' | b'[') {
                        if open.len() == MAX_DEPTH {
                            return None;
                        }
                        open.push(values.len());
                    }
                    values.push(Value {
                        start: u32::try_from(at).ok()?,
                        end: u32::try_from(end).ok()?,
                        next: u32::try_from(values.len() + 1).ok()?,
                    });
                    at = end;
                }
            }
        }
        (open.is_empty() && !values.is_empty()).then_some(Self { text, values })
    }

    /// Feeds the value at `index`. What it writes ends by itself: no value's bytes begin another's.
    fn feed(&self, index: usize, hash: &mut Framed) -> Option<()> {
        let text = self.text_of(index)?;
        match text.as_bytes().first()? {
            b'{' => self.feed_object(index, hash)?,
            b'[' => self.feed_array(index, hash)?,
            b'"' => feed_string(&decode(text)?, hash),
            first @ (b't' | b'f' | b'n') => hash.tag(*first),
            _ => Number::parse(text)?.feed(hash),
        }
        Some(())
    }

    fn feed_array(&self, index: usize, hash: &mut Framed) -> Option<()> {
        hash.tag(b'[');
        for element in self.inside(index) {
            self.feed(element, hash)?;
        }
        hash.tag(b']');
        Some(())
    }

    fn feed_object(&self, index: usize, hash: &mut Framed) -> Option<()> {
        let mut members: Vec<(Cow<'_, str>, usize)> = Vec::new();
        let mut inside = self.inside(index);
        while let Some(name) = inside.next() {
            members.push((decode(self.text_of(name)?)?, inside.next()?));
        }
        // Stable, so that members of the same name keep their order.
        members.sort_by(|a, b| utf16_order(&a.0, &b.0));
        hash.tag(b'{');
        for (name, value) in members {
            feed_string(&name, hash);
            self.feed(value, hash)?;
        }
        hash.tag(b'}');
        Some(())
    }

    fn text_of(&self, index: usize) -> Option<&'a str> {
        let value = self.values.get(index)?;
        self.text.get(value.start as usize..value.end as usize)
    }

    /// The indices of the values directly inside a container, names of members included.
    fn inside(&self, container: usize) -> impl Iterator<Item = usize> {
        let end = self.values[container].next as usize;
        let mut at = container + 1;
        std::iter::from_fn(move || {
            let index = at;
            (index < end).then(|| {
                at = self.values[index].next as usize;
                index
            })
        })
    }
}

fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn end_of_scalar(bytes: &[u8], start: usize) -> usize {
    let rest = &bytes[start + 1..];
    let len = rest.iter().position(|byte| {
        matches!(
            byte,
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'}' | b']'
        )
    });
    start + 1 + len.unwrap_or(rest.len())
}

/// The characters of a string literal, borrowed where nothing is escaped.
fn decode(literal: &str) -> Option<Cow<'_, str>> {
    let inside = literal.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') {
        serde_json::from_str(literal).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inside))
    }
}

fn feed_string(text: &str, hash: &mut Framed) {
    hash.tag(b'"');
    hash.part(text.as_bytes());
}

/// The order of RFC 8785, section 3.2.3, without converting.
///
/// UTF-8 sorts by code point, as bytes do. UTF-16 differs in one place: characters beyond U+FFFF begin with
/// a surrogate (0xD800 to 0xDFFF) and sort before U+E000 to U+FFFF. In UTF-8 the former begin with 0xF0 or
/// more, the latter with 0xEE or 0xEF.
fn utf16_order(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    match a.iter().zip(b).find(|(x, y)| x != y) {
        None => a.len().cmp(&b.len()),
        Some((0xf0.., 0xee..=0xef)) => Ordering::Less,
        Some((0xee..=0xef, 0xf0..)) => Ordering::Greater,
        Some((x, y)) => x.cmp(y),
    }
}

/// A number as sign, significant digits and the power of ten of the last of them.
struct Number<'a> {
    negative: bool,
    /// The digits, in two pieces because a decimal point may stand between them. No leading zeros, no
    /// trailing ones; none at all for zero.
    digits: [&'a str; 2],
    exponent: i128,
}

impl<'a> Number<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (negative, text) = strip_minus(text);
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits_only = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits_only(whole) || !digits_only(fraction) {
            return None;
        }
        // Zeros that say nothing go, first in front, then at the end; each zero at the end of the digits
        // raises the power of ten of the last one by one, each digit behind the point lowers it.
        let whole = whole.trim_start_matches('0');
        let kept = fraction.trim_end_matches('0');
        let mut shift = -i64::try_from(kept.len()).ok()?;
        let digits = match (whole, kept) {
            ("", kept) => ["", kept.trim_start_matches('0')],
            (whole, "") => {
                let kept = whole.trim_end_matches('0');
                shift = i64::try_from(whole.len() - kept.len()).ok()?;
                [kept, ""]
            }
            both => both.into(),
        };
        let exponent = parse_exponent(exponent)?.checked_add(i128::from(shift))?;
        Some(Self {
            negative,
            digits,
            exponent,
        })
    }

    fn feed(&self, hash: &mut Framed) {
        let len = self.digits[0].len() + self.digits[1].len();
        if len == 0 {
            return hash.tag(b'0');
        }
        hash.tag(if self.negative { b'-' } else { b'+' });
        hash.count(len);
        hash.raw(self.digits[0].as_bytes());
        hash.raw(self.digits[1].as_bytes());
        hash.raw(&self.exponent.to_be_bytes());
    }
}

/// The power of ten as it is written. Thirty-eight digits are sure to fit; more are not worth a big number.
fn parse_exponent(text: &str) -> Option<i128> {
    let (negative, digits) = strip_minus(text.strip_prefix('+').unwrap_or(text));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let magnitude: i128 = match digits.len() {
        0 => 0,
        1..=38 => digits.parse().ok()?,
        _ => return None,
    };
    Some(if negative { -magnitude } else { magnitude })
}

fn strip_minus(text: &str) -> (bool, &str) {
    text.strip_prefix('-')
        .map_or((false, text), |rest| (true, rest))
}
