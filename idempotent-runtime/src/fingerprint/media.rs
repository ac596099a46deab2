//! `Content-Type`, compared by what it means.
//!
//! The type and the names of parameters have no letter case, the order of parameters does not count, and a quoted
//! value means the same as a bare one (RFC 9110, sections 5.6.6 and 8.3.1). Two parameters never count: `charset=utf-8`,
//! which clients add or leave out at will, and the `boundary` of a multipart body, which is new in each attempt.

use std::borrow::Cow;

use crate::digest::Framed;

/// A media type with its parameters.
pub(super) struct MediaType<'a> {
    /// `type/subtype`, as it was sent.
    essence: &'a [u8],
    /// The parameters that count, sorted by name. A type without any allocates nothing.
    parameters: Vec<Parameter<'a>>,
    boundary: Option<Cow<'a, [u8]>>,
}

/// Its name in lower case, and its value without quotes.
type Parameter<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// Writes this value of `Content-Type`; one that cannot be parsed counts as it is.
pub(super) fn write(parts: &mut Framed, value: &[u8]) {
    if let Some(media_type) = MediaType::parse(value) {
        media_type.write(parts);
    } else {
        parts.tag(0);
        parts.part(value.trim_ascii());
    }
}

impl<'a> MediaType<'a> {
    /// `None` if the syntax is wrong, or a parameter is there twice.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let end = value.iter().position(|byte| *byte == b';');
        let (essence, mut rest) = value.split_at(end.unwrap_or(value.len()));
        let mut media_type = Self {
            essence: essence.trim_ascii(),
            parameters: Vec::new(),
            boundary: None,
        };
        if media_type.essence.is_empty() {
            return None;
        }
        if rest.is_empty() {
            return Some(media_type);
        }
        let mut utf8 = false;
        while let [b';', after @ ..] = rest {
            rest = after.trim_ascii_start();
            if matches!(rest, [] | [b';', ..]) {
                continue;
            }
            let ((name, value), after) = parameter(rest)?;
            rest = after.trim_ascii_start();
            match &*name {
                b"charset" if value.eq_ignore_ascii_case(b"utf-8") => {
                    if std::mem::replace(&mut utf8, true) {
                        return None;
                    }
                }
                // Names of character sets have no letter case.
                b"charset" => {
                    let value = value.to_ascii_lowercase().into();
                    media_type.parameters.push((name, value));
                }
                b"boundary" if media_type.is_multipart() => {
                    if media_type.boundary.replace(value).is_some() {
                        return None;
                    }
                }
                _ => media_type.parameters.push((name, value)),
            }
        }
        let parameters = &mut media_type.parameters;
        parameters.sort();
        let twice = parameters.windows(2).any(|pair| pair[0].0 == pair[1].0)
            || utf8 && parameters.iter().any(|(name, _)| **name == *b"charset");
        (rest.is_empty() && !twice).then_some(media_type)
    }

    pub(super) fn write(&self, parts: &mut Framed) {
        parts.tag(1);
        parts.part(&lower(self.essence));
        parts.count(self.parameters.len());
        for (name, value) in &self.parameters {
            parts.part(name);
            parts.part(value);
        }
    }

    /// `application/json`, or a type whose name ends in `+json` (RFC 6839).
    pub(super) fn is_json(&self) -> bool {
        let end = self.essence.len().saturating_sub(b"+json".len());
        self.essence.eq_ignore_ascii_case(b"application/json")
            || self.essence[end..].eq_ignore_ascii_case(b"+json")
    }

    pub(super) fn is_form(&self) -> bool {
        let form = b"application/x-www-form-urlencoded";
        self.essence.eq_ignore_ascii_case(form)
    }

    /// What separates the parts of a multipart body.
    pub(super) fn boundary(&self) -> Option<&[u8]> {
        self.boundary.as_deref()
    }

    fn is_multipart(&self) -> bool {
        let prefix = self.essence.get(..b"multipart/".len());
        prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"multipart/"))
    }
}

/// The parameter at the beginning, and what follows it.
fn parameter(text: &[u8]) -> Option<(Parameter<'_>, &[u8])> {
    let (name, rest) = token(text)?;
    let rest = rest.strip_prefix(b"=")?;
    let (value, rest) = match rest.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted)?,
        None => token(rest).map(|(value, rest)| (value.into(), rest))?,
    };
    Some(((lower(name), value), rest))
}

/// The token at the beginning, and what follows it.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let delimiter = |byte: &u8| !byte.is_ascii_graphic() || br#"(),/:;<=>?@[\]{}""#.contains(byte);
    let len = text.iter().position(delimiter).unwrap_or(text.len());
    (len > 0).then(|| text.split_at(len))
}

/// The text up to the closing quote, and what follows that.
fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    if text[end] == b'"' {
        return Some((text[..end].into(), &text[end + 1..]));
    }
    let mut value = Vec::new();
    let mut bytes = text.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some((value.into(), bytes.as_slice())),
            b'\\' => value.push(*bytes.next()?),
            byte => value.push(*byte),
        }
    }
}

/// The same in lower case; almost always that is what it is.
pub(super) fn lower(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(u8::is_ascii_uppercase) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line holds spellings of one media type; no two lines hold the same.
    #[rustfmt::skip]
    const TYPES: &[&[&str]] = &[
        &["application/json", "Application/JSON", " application/json ", "application/json;", "application/json ; ",
          "application/json; charset=utf-8", "application/json;Charset=\"UTF-8\"", "application/json;;charset=utf-8 ;"],
        &["application/json; charset=latin1", "application/json;charset=\"Latin1\""],
        &["application/json; version=1", "application/json;VERSION=1;charset=utf-8", "application/json; version=\"1\"",
          "application/json; version=\"\\1\""],
        &["application/json; version=2"],
        &["application/json; version=a"],
        &["application/json; version=A"],
        &["application/vnd.api+json"],
        &["application/vnd.api+json; ext=\"a b\""],
        &["application/vnd.api+json; ext=\"a b\";profile=x", "application/vnd.api+json;profile=x; ext=\"a b\""],
        &["application/vnd.api+json; ext=\"a;b=\\\"c\\\"\""],
        &["multipart/form-data", "multipart/form-data; boundary=a", "Multipart/Form-Data;boundary=\"b c\";charset=utf-8"],
        &["multipart/form-data; x=1", "multipart/form-data; boundary=a; x=1", "multipart/form-data; x=1; boundary=b"],
        &["text/plain"],
        &["text/plain; boundary=a"],
        &["text/plain; boundary=b"],
        // What cannot be parsed counts as it is.
        &["application/json; version", " application/json; version"],
        &["application/json;version"],
        &["application/json; version=1; version=2"],
        &["application/json; version=2; version=1"],
        &["application/json; charset=utf-8; charset=latin1"],
        &["application/json; charset=utf-8; charset=utf-8"],
        &["multipart/form-data; boundary=a; boundary=b"],
        &["application/json; version=\"1"],
        &["application/json; version=1 2"],
        &["application/json, text/plain"],
        &[";"],
        &["", " "],
    ];

    fn identity(value: &str) -> [u8; 32] {
        let mut parts = Framed::sha256("test");
        write(&mut parts, value.as_bytes());
        parts.finish()
    }

    #[test]
    fn media_types_are_equal_exactly_if_they_mean_the_same() {
        let mut seen: Vec<([u8; 32], &str)> = Vec::new();
        for texts in TYPES {
            let first = identity(texts[0]);
            for text in *texts {
                assert_eq!(identity(text), first, "{text:?} is {:?}", texts[0]);
            }
            let other = seen.iter().find(|(identity, _)| *identity == first);
            assert_eq!(other, None, "{:?} is another type", texts[0]);
            seen.push((first, texts[0]));
        }
    }

    #[test]
    fn kinds_are_recognised_in_any_spelling() {
        let kinds = |value: &str| {
            let media_type = MediaType::parse(value.as_bytes()).unwrap();
            let boundary = media_type
                .boundary()
                .map(|b| String::from_utf8_lossy(b).into_owned());
            (media_type.is_json(), media_type.is_form(), boundary)
        };
        for json in [
            "application/json",
            "APPLICATION/Json; v=1",
            "image/svg+JSON",
            "application/ld+json; p=\"x\"",
        ] {
            assert_eq!(kinds(json), (true, false, None), "{json}");
        }
        for other in [
            "text/plain",
            "application/jsonp",
            "application/json-seq",
            "json",
            "text/json+x",
        ] {
            assert_eq!(kinds(other), (false, false, None), "{other}");
        }
        assert_eq!(
            kinds("application/X-WWW-form-urlencoded;charset=utf-8"),
            (false, true, None)
        );
        assert_eq!(
            kinds("multipart/mixed; boundary=\"a b\"").2.as_deref(),
            Some("a b")
        );
    }
}
