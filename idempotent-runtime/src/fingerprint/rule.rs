//! What a route compares.

use std::{fmt, ptr};

use http::{HeaderName, request::Parts};

use crate::names::{HeaderNames, is_header_name, set};

/// What a fingerprint is made of: what must be equal for a request to be a retry.
///
/// 1. The method.
/// 2. The path, in full and as it was sent.
/// 3. The query, split at `&` and its pairs sorted as bytes, so that the order in which a client's library
///    writes a map does not matter. Nothing is decoded or dropped: `%41` and `A` differ, so do `a` and `a=`,
///    and `/x` and `/x?`.
/// 4. The media type of `Content-Type` in lower case, without parameters. The spelling of a charset does not
///    count, nor does a multipart boundary, which is new with each attempt.
/// 5. The chosen [`headers`](Self::headers): for each the number of its lines and every value, in order.
/// 6. If no scope says who calls, a digest of the request's [credentials](crate::scope::Credentials), so that another
///    caller's key is a `caller_mismatch` and never a replay.
/// 7. The body: its bytes, or its meaning with [`json`](Self::json).
///
/// # Caveats
///
/// * A retry must send the same body. A client that writes the time into the body of each attempt gets a
///   mismatch, and so does a multipart body unless its boundary is fixed.
/// * Because the pairs of the query are sorted as a whole, `a=1&a=2` and `a=2&a=1` are the same request.
/// * A retry of a request from before a change of the rule is a mismatch.
///
/// # Example
///
/// ```
/// use idempotent_runtime::FingerprintRule;
///
/// static RULE: FingerprintRule = FingerprintRule::new().headers(&["x-currency"]).json();
/// # let _ = RULE;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
// Four independent switches, each with the name of the method that sets it.
#[allow(clippy::struct_excessive_bools)]
pub struct FingerprintRule {
    pub(super) headers: HeaderNames,
    pub(super) json: bool,
    pub(super) ignore_query: bool,
    pub(super) ignore_body: bool,
    pub(super) ignore_content_type: bool,
    pub(crate) function: Option<FingerprintFunction>,
}

impl FingerprintRule {
    /// Method, path, query, media type and the bytes of the body.
    pub const fn new() -> Self {
        Self {
            headers: HeaderNames::NONE,
            json: false,
            ignore_query: false,
            ignore_body: false,
            ignore_content_type: false,
            function: None,
        }
    }

    /// What the request asks for is what this function says of its head and body, such as the fields that matter.
    ///
    /// Two requests with one key are the same if the function returns equal bytes for both, and the method, the full path
    /// and the caller are the same. The query, the headers and the body count only as far as the function uses them, and
    /// no other rule applies. A panic in it is answered with 500, and the request claims nothing.
    pub const fn by(function: fn(&Parts, &[u8]) -> Vec<u8>) -> Self {
        let mut rule = Self::new();
        rule.function = Some(FingerprintFunction(function));
        rule
    }

    /// Also the values of these headers, named in any case and order; a second call replaces the list. For names
    /// known only at run time there is [`header_names`](Self::header_names).
    ///
    /// # Panics
    ///
    /// If one of them is not a valid header name. In a `static` rule that is a compile error.
    pub const fn headers(mut self, names: &'static [&'static str]) -> Self {
        let mut at = 0;
        while at < names.len() {
            // No header has an invalid name, so the fingerprint would leave out what the application means to compare.
            assert!(
                is_header_name(names[at]),
                "one of the headers to compare has an invalid name: use letters, digits and `-`"
            );
            at += 1;
        }
        set(&mut self.headers, HeaderNames::Static(names));
        self
    }

    /// Also the values of these headers, for names known only at run time; it replaces the list of
    /// [`headers`](Self::headers).
    pub fn header_names(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.headers = HeaderNames::Shared(names.into_iter().collect());
        self
    }

    /// Compares bodies by what their JSON means instead of by their bytes.
    ///
    /// White space, the order of an object's members, the escapes in strings and the spelling of numbers do
    /// not count: `{"a":1,"b":2}` and `{ "b": 2.0, "\u0061": 1e0 }` are the same. Numbers are compared as
    /// exact decimals and never rounded. A body that is not valid JSON, or is nested deeper than 128 levels, is
    /// compared by its bytes.
    pub const fn json(mut self) -> Self {
        self.json = true;
        self
    }

    /// The query does not count.
    pub const fn ignore_query(mut self) -> Self {
        self.ignore_query = true;
        self
    }

    /// The body does not count.
    pub const fn ignore_body(mut self) -> Self {
        self.ignore_body = true;
        self
    }

    /// The media type does not count.
    pub const fn ignore_content_type(mut self) -> Self {
        self.ignore_content_type = true;
        self
    }
}

/// An application's function that says what a request asks for.
#[derive(Clone, Copy)]
pub(crate) struct FingerprintFunction(fn(&Parts, &[u8]) -> Vec<u8>);

impl FingerprintFunction {
    pub(crate) fn call(self, head: &Parts, body: &[u8]) -> Vec<u8> {
        (self.0)(head, body)
    }
}

impl PartialEq for FingerprintFunction {
    fn eq(&self, other: &Self) -> bool {
        ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for FingerprintFunction {}

impl fmt::Debug for FingerprintFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintFunction")
    }
}
