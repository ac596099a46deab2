//! The values of a text, one after the other.

use std::{borrow::Cow, cmp::Ordering};

use super::number::Number;
use crate::{
    digest::Framed,
    fingerprint::pointer::{inside_element, inside_member},
};

/// The deepest nesting that is compared by meaning: what `serde_json` itself accepts.
pub(super) const MAX_DEPTH: usize = 128;

/// The most values that are compared by meaning. Each takes more memory than its text: on the tape, and as a member that is
/// sorted. No text of up to 2 MiB, the default limit of a body, has more.
pub(super) const MAX_VALUES: usize = 1 << 20;

/// The values of a text in the order in which they begin.
pub(super) struct Tape<'a> {
    text: &'a str,
    values: Vec<Value>,
}

/// A value, or the name of a member.
struct Value {
    /// Where its text begins. Its first byte says what it is.
    start: u32,
    /// Where its text ends; of arrays and objects, only the bracket.
    end: u32,
    /// The index on the tape of the value that follows it and everything inside it.
    next: u32,
}

impl<'a> Tape<'a> {
    /// Records the values of a text whose syntax has been checked.
    ///
    /// Only the result depends on that check, safety does not: an unchecked text gives `None` or the tape of some
    /// other value.
    pub(super) fn scan(text: &'a str) -> Option<Self> {
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
                _ if values.len() == MAX_VALUES => return None,
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

    /// Feeds the value at `index` to the hash. The bytes delimit themselves: those of one value are never the
    /// beginning of another's. What the pointers in `ignored` point to, seen from this value, is left out.
    pub(super) fn feed(&self, index: usize, ignored: &[&str], hash: &mut Framed) -> Option<()> {
        let text = self.text_of(index)?;
        match text.as_bytes().first()? {
            b'{' => self.feed_object(index, ignored, hash)?,
            b'[' => self.feed_array(index, ignored, hash)?,
            b'"' => feed_string(&decode(text)?, hash),
            first @ (b't' | b'f' | b'n') => hash.tag(*first),
            _ => Number::parse(text)?.feed(hash),
        }
        Some(())
    }

    fn feed_array(&self, index: usize, ignored: &[&str], hash: &mut Framed) -> Option<()> {
        hash.tag(b'[');
        for (position, element) in self.inside(index).enumerate() {
            if let Some(ignored) = inside_element(ignored, position) {
                self.feed(element, &ignored, hash)?;
            }
        }
        hash.tag(b']');
        Some(())
    }

    fn feed_object(&self, index: usize, ignored: &[&str], hash: &mut Framed) -> Option<()> {
        let mut members: Vec<(Cow<'_, str>, usize)> = Vec::new();
        let mut inside = self.inside(index);
        while let Some(name) = inside.next() {
            members.push((decode(self.text_of(name)?)?, inside.next()?));
        }
        // Stable, so that members of the same name keep their order.
        members.sort_by(|a, b| utf16_order(&a.0, &b.0));
        hash.tag(b'{');
        for (name, value) in members {
            if let Some(ignored) = inside_member(ignored, &name) {
                feed_string(&name, hash);
                self.feed(value, &ignored, hash)?;
            }
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
pub(super) fn utf16_order(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    match a.iter().zip(b).find(|(x, y)| x != y) {
        None => a.len().cmp(&b.len()),
        Some((0xf0.., 0xee..=0xef)) => Ordering::Less,
        Some((0xee..=0xef, 0xf0..)) => Ordering::Greater,
        Some((x, y)) => x.cmp(y),
    }
}
