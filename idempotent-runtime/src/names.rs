//! Names in a policy: written in the code, or known only at run time.
//!
//! The attribute makes each policy a constant, so there a name is a `&'static str`. A service that reads its
//! settings from a file has owned ones. Every type here holds either kind, and its clone never copies text: it
//! copies a reference or counts one more owner. The engine resolves a policy for each request, so that matters.

use std::{borrow::Cow, fmt, mem, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header::GetAll};

/// A route's name.
#[derive(Clone)]
pub(crate) enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

/// The request header that carries the key.
#[derive(Clone)]
pub(crate) enum KeyHeader {
    /// Checked by [`is_header_name`].
    Static(&'static str),
    Shared(Arc<HeaderName>),
}

/// The header of keys where nothing else was chosen.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The same, parsed when the program was compiled: a name that is looked up as text is parsed each time.
static PARSED: HeaderName = HeaderName::from_static(IDEMPOTENCY_KEY);

/// The request headers that are part of a fingerprint.
#[derive(Clone)]
pub(crate) enum HeaderNames {
    /// Each checked by [`is_header_name`].
    Static(&'static [&'static str]),
    Shared(Arc<[HeaderName]>),
}

/// Any other texts of a rule: JSON pointers, names of query parameters.
#[derive(Clone)]
pub(crate) enum Texts {
    Static(&'static [&'static str]),
    Shared(Arc<[Box<str>]>),
}

/// Whether this is a token of RFC 9110, section 5.6.2, which `http` cannot say in a `const`.
pub(crate) const fn is_header_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let valid = matches!(
            bytes[at],
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'
                | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
                | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        if !valid {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty()
}

/// Sets a field that may own something, in a `const fn`.
///
/// A plain assignment drops the old value, and a `const fn` cannot run a destructor (E0493). The old value is
/// forgotten instead. In nearly every call it owns nothing. Only a setter for a constant that follows one for a
/// run-time value leaks that value, once in a program's set-up.
pub(crate) const fn set<T>(field: &mut T, value: T) {
    mem::forget(mem::replace(field, value));
}

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Static(name) => name,
            Self::Shared(name) => name,
        }
    }

    /// The name as a route's endpoint. A name known at run time is copied, just as an endpoint without a name is
    /// composed for each request.
    pub(crate) fn to_endpoint(&self) -> Cow<'static, str> {
        match self {
            Self::Static(name) => Cow::Borrowed(name),
            Self::Shared(name) => Cow::Owned(name.as_ref().to_owned()),
        }
    }
}

impl KeyHeader {
    /// The name for messages: as it was written in the code, or in lower case.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Static(name) => name,
            Self::Shared(name) => name.as_str(),
        }
    }

    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Static(IDEMPOTENCY_KEY) => headers.contains_key(&PARSED),
            Self::Static(name) => headers.contains_key(*name),
            Self::Shared(name) => headers.contains_key(&**name),
        }
    }

    /// All header lines of this name.
    pub(crate) fn lines<'a>(&self, headers: &'a HeaderMap) -> GetAll<'a, HeaderValue> {
        match self {
            Self::Static(IDEMPOTENCY_KEY) => headers.get_all(&PARSED),
            Self::Static(name) => headers.get_all(*name),
            Self::Shared(name) => headers.get_all(&**name),
        }
    }
}

impl HeaderNames {
    pub(crate) const NONE: Self = Self::Static(&[]);

    /// The names as they were written, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let (written, parsed): (&[&str], &[HeaderName]) = match self {
            Self::Static(names) => (names, &[]),
            Self::Shared(names) => (&[], names),
        };
        let parsed = parsed.iter().map(HeaderName::as_str);
        written.iter().copied().chain(parsed)
    }
}

impl HeaderNames {
    /// Whether this header is among them.
    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        self.iter()
            .any(|own| own.eq_ignore_ascii_case(name.as_str()))
    }
}

impl Texts {
    pub(crate) const NONE: Self = Self::Static(&[]);

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let (written, read): (&[&str], &[Box<str>]) = match self {
            Self::Static(texts) => (texts, &[]),
            Self::Shared(texts) => (&[], texts),
        };
        written
            .iter()
            .copied()
            .chain(read.iter().map(|text| &**text))
    }

    pub(crate) fn contains(&self, text: &[u8]) -> bool {
        self.iter().any(|one| one.as_bytes() == text)
    }
}

impl Default for Texts {
    fn default() -> Self {
        Self::NONE
    }
}

/// Equal if they are the same texts in the same order, wherever they come from.
impl PartialEq for Texts {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Texts {}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self::NONE
    }
}

/// Equal if they are the same headers in the same order, wherever the names come from.
impl PartialEq for HeaderNames {
    fn eq(&self, other: &Self) -> bool {
        self.iter()
            .map(str::to_ascii_lowercase)
            .eq(other.iter().map(str::to_ascii_lowercase))
    }
}

impl Eq for HeaderNames {}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for KeyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for HeaderNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_recognised_as_http_does() {
        for byte in 0..=0x7f_u8 {
            let name = char::from(byte).to_string();
            let valid = HeaderName::from_bytes(name.as_bytes()).is_ok();
            assert_eq!(is_header_name(&name), valid, "{name:?}");
        }
        assert!(is_header_name("X-Currency"));
        for bad in ["", "x currency", "x-currency:", "x\u{e9}"] {
            assert!(!is_header_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_clone_of_a_run_time_name_shares_its_text() {
        let name = Name::Shared("pay".into());
        assert!(std::ptr::eq(name.as_str(), name.clone().as_str()));
        let header = KeyHeader::Shared(Arc::new(HeaderName::from_static("x-request-key")));
        assert!(std::ptr::eq(header.as_str(), header.clone().as_str()));
    }

    #[test]
    fn lists_of_header_names_are_equal_wherever_they_come_from() {
        let parsed = ["x-a", "x-b"].map(HeaderName::from_static);
        let shared = HeaderNames::Shared(parsed.into());
        assert_eq!(HeaderNames::Static(&["X-A", "x-b"]), shared);
        assert_ne!(HeaderNames::Static(&["x-b", "x-a"]), shared);
        assert_ne!(HeaderNames::NONE, shared);
    }
}
