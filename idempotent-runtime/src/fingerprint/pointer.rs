//! JSON pointers (RFC 6901): which members and elements of a body do not count.

use std::{error::Error, fmt, str::FromStr};

/// A JSON pointer (RFC 6901) to a member or an element: `/meta/sent_at`, `/items/0`. In a name, `~1` stands for `/`
/// and `~0` for `~`.
///
/// A pointer known when the code is written goes into [`FingerprintRule::ignore`](crate::FingerprintRule::ignore) as
/// text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPointer(pub(super) Box<str>);

/// The text is not a JSON pointer, or points to the whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPointer {
    text: String,
}

impl FromStr for JsonPointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, InvalidPointer> {
        if is_pointer(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidPointer { text: text.into() })
        }
    }
}

impl fmt::Display for InvalidPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a JSON pointer to a member: begin with `/`, as in `/meta/sent_at`, and write `~0` for `~` and \
             `~1` for `/` in a name",
            self.text
        )
    }
}

impl Error for InvalidPointer {}

/// Whether this is a pointer to a member or an element, and not to the whole.
pub(super) const fn is_pointer(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes[0] != b'/' {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'~' && (at + 1 == bytes.len() || !matches!(bytes[at + 1], b'0' | b'1')) {
            return false;
        }
        at += 1;
    }
    true
}

/// What the pointers mean inside the member of this name, or `None` if one of them points to it.
pub(super) fn inside_member<'a>(pointers: &[&'a str], name: &str) -> Option<Vec<&'a str>> {
    inside(pointers, |token| is_name(token, name))
}

/// The same for the element at this index of an array.
pub(super) fn inside_element<'a>(pointers: &[&'a str], index: usize) -> Option<Vec<&'a str>> {
    // No sign and no leading zeros (section 4).
    let canonical =
        |token: &str| token == "0" || token.starts_with(|c: char| matches!(c, '1'..='9'));
    inside(pointers, |token| {
        canonical(token) && token.parse() == Ok(index)
    })
}

fn inside<'a>(pointers: &[&'a str], is: impl Fn(&str) -> bool) -> Option<Vec<&'a str>> {
    let mut inside = Vec::new();
    for pointer in pointers {
        // Invariant: what remains of a pointer begins with a slash.
        let end = pointer[1..].find('/').map_or(pointer.len(), |end| end + 1);
        if is(&pointer[1..end]) {
            match &pointer[end..] {
                "" => return None,
                rest => inside.push(rest),
            }
        }
    }
    Some(inside)
}

/// Whether this token of a pointer means this name.
fn is_name(token: &str, name: &str) -> bool {
    let mut token = token.bytes();
    let decoded = std::iter::from_fn(|| match token.next()? {
        b'~' => Some(if token.next() == Some(b'1') {
            b'/'
        } else {
            b'~'
        }),
        byte => Some(byte),
    });
    decoded.eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_syntax_is_that_of_rfc_6901() {
        for valid in [
            "/",
            "/a",
            "/a/b",
            "/a//b",
            "/~0",
            "/~1",
            "/a~1b",
            "/m~0n/~01",
            "/ ",
            "/é",
        ] {
            assert_eq!(valid.parse(), Ok(JsonPointer(valid.into())));
        }
        for wrong in ["", "a", "a/b", "/~", "/~2", "/a~", "#/a", "/a/~x"] {
            let error = wrong.parse::<JsonPointer>().unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("{wrong:?} is not")),
                "{error}"
            );
        }
    }

    #[test]
    fn tokens_are_unescaped_and_indices_canonical() {
        let none: Option<Vec<&str>> = None;
        assert_eq!(inside_member(&["/a"], "a"), none);
        assert_eq!(inside_member(&["/a~1b"], "a/b"), none);
        assert_eq!(inside_member(&["/~01"], "~1"), none);
        assert_eq!(inside_member(&["/"], ""), none);
        assert_eq!(
            inside_member(&["/a/b", "/c", "/a/d/e"], "a"),
            Some(vec!["/b", "/d/e"])
        );
        assert_eq!(inside_member(&["/ab"], "a"), Some(vec![]));
        assert_eq!(inside_element(&["/0", "/1/x"], 0), none);
        assert_eq!(inside_element(&["/0", "/1/x"], 1), Some(vec!["/x"]));
        for other in [
            "/01",
            "/+1",
            "/-",
            "/1.0",
            "/ 1",
            "/99999999999999999999999",
        ] {
            assert_eq!(inside_element(&[other], 1), Some(vec![]), "{other}");
        }
    }
}
