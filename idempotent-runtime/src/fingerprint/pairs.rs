//! Names and values separated by `&`: the query, and urlencoded forms.
//!
//! Pairs are sorted by name, so that the order in which a client writes a map does not count. The values of one name
//! keep their order, which means something. So does the order of all pairs whose names agree up to a `[]`: frameworks
//! begin a new element of `items[]` where a name repeats, so `items[][id]` and `items[][n]` cannot be sorted apart.
//! Names are sorted as they are decoded: `%61` and `a` are one name.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::rule::FingerprintRule;
use crate::digest::Framed;

/// More pairs than this are not sorted: no form has so many, and each costs more than its bytes.
const MOST: usize = 10_000;

/// Writes the query. Its pairs count as they were sent: `%41` and `A` differ, so do `a` and `a=`.
///
/// No query counts no pairs; an empty query counts one empty pair.
pub(super) fn write_query(parts: &mut Framed, query: Option<&str>, rule: &FingerprintRule) {
    let query = query.filter(|_| !rule.ignore_query);
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    let mut pairs: Vec<(Cow<'_, [u8]>, &str)> = pairs
        .map(|pair| (decode(split(pair.as_bytes()).0), pair))
        .filter(|(name, _)| !rule.ignored_parameters.contains(name))
        .collect();
    pairs.sort_by(|a, b| group(&a.0).cmp(group(&b.0)));
    parts.count(pairs.len());
    for (_, pair) in pairs {
        parts.part(pair.as_bytes());
    }
}

/// Writes a form by what it means: names and values are decoded, and empty pairs left out. `false`, and nothing
/// written, if it has too many pairs.
pub(super) fn write_form(parts: &mut Framed, tag: u8, body: &[u8]) -> bool {
    let pairs = || {
        body.split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty())
    };
    let count = pairs().take(MOST + 1).count();
    if count > MOST {
        return false;
    }
    let pair = |pair| {
        let (name, value) = split(pair);
        let name = decode(name);
        (group(&name).len(), name, value)
    };
    let mut pairs: Vec<_> = pairs().map(pair).collect();
    pairs.sort_by(|(len, name, _), (other_len, other, _)| name[..*len].cmp(&other[..*other_len]));
    parts.tag(tag);
    parts.count(count);
    for (_, name, value) in pairs {
        parts.part(&name);
        parts.part(&decode(value));
    }
    true
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[]),
    }
}

/// The bytes that are meant (WHATWG URL, section 5.1). Not the characters, because invalid UTF-8 counts too.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaces = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
    let text: Vec<u8> = text.iter().map(spaces).collect();
    let decoded: Cow<'_, [u8]> = percent_decode(&text).into();
    decoded.into_owned().into()
}

/// The part of a name by which pairs are sorted: up to the first `[]`, or all of it.
fn group(name: &[u8]) -> &[u8] {
    let end = name.windows(2).position(|pair| pair == b"[]");
    end.map_or(name, |end| &name[..end + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> [u8; 32] {
        let mut parts = Framed::sha256("test");
        write_query(&mut parts, Some(text), &FingerprintRule::new());
        parts.finish()
    }

    fn form(text: &[u8]) -> [u8; 32] {
        let mut parts = Framed::sha256("test");
        assert!(write_form(&mut parts, 0, text));
        parts.finish()
    }

    #[test]
    fn pairs_are_sorted_by_name_and_the_values_of_a_name_keep_their_order() {
        for (a, b) in [
            ("a=1&b=2", "b=2&a=1"),
            ("a=1&b=2&a=3", "b=2&a=1&a=3"),
            ("a[0]=x&a[1]=y&b=1", "a[1]=y&b=1&a[0]=x"),
            ("a[]=x&a[]=y&b=1", "b=1&a[]=x&a[]=y"),
            ("", ""),
        ] {
            assert_eq!(query(a), query(b), "{a} {b}");
            assert_eq!(form(a.as_bytes()), form(b.as_bytes()), "{a} {b}");
        }
        for (a, b) in [
            ("a=1&a=2", "a=2&a=1"),
            // The same name in another spelling.
            ("a=1&%61=2", "%61=2&a=1"),
            ("a+b=1&a%20b=2", "a%20b=2&a+b=1"),
            ("a[]=x&a[]=y", "a[]=y&a[]=x"),
            (
                "a[][n]=1&a[][m]=2&a[][m]=3&a[][n]=4",
                "a[][n]=1&a[][n]=4&a[][m]=2&a[][m]=3",
            ),
            ("a=1", "b=1"),
            ("a=1&b=2", "a=2&b=1"),
            ("a=1&b=2", "a=1%26b=2"),
            ("a=1", "a=1&a=1"),
            ("a=b=c", "a%3Db=c"),
        ] {
            assert_ne!(query(a), query(b), "{a} {b}");
            assert_ne!(form(a.as_bytes()), form(b.as_bytes()), "{a} {b}");
        }
    }

    #[test]
    fn a_form_is_compared_decoded_and_a_query_as_it_was_sent() {
        for (a, b) in [
            ("a=x+y", "a=x%20y"),
            ("%61=1", "a=1"),
            ("a=%c3%a9", "a=%C3%A9"),
            ("a=%C3%A9", "a=é"),
            ("a", "a="),
            ("a=1&&b=2&", "a=1&b=2"),
            ("a=%zz", "a=%25zz"),
        ] {
            assert_eq!(form(a.as_bytes()), form(b.as_bytes()), "{a} {b}");
            assert_ne!(query(a), query(b), "{a} {b}");
        }
        for (a, b) in [("a=%FF", "a=%FE"), ("a=%2B", "a=+"), ("a=%00", "a=")] {
            assert_ne!(form(a.as_bytes()), form(b.as_bytes()), "{a} {b}");
        }
        assert_ne!(form(b"a=\xff"), form(b"a=\xfe"));
    }

    #[test]
    fn a_form_of_too_many_pairs_is_not_sorted() {
        let mut parts = Framed::sha256("test");
        assert!(write_form(&mut parts, 0, "a&".repeat(MOST).as_bytes()));
        assert!(!write_form(&mut parts, 0, "a&".repeat(MOST + 1).as_bytes()));
        assert!(write_form(&mut parts, 0, "&".repeat(MOST * 2).as_bytes()));
    }
}
