//! What a route compares.

use std::{fmt, ptr};

use http::{HeaderName, request::Parts};

use super::pointer::{JsonPointer, is_pointer};
use crate::names::{HeaderNames, Texts, is_header_name, set};

/// What a fingerprint is made of: what must be equal for a request to be a retry.
///
/// 1. The method.
/// 2. The path, in full and as it was sent.
/// 3. The query, split at `&` and sorted by name, so that the order in which a client's library writes a map does not
///    matter. The values of one name keep their order: `a=1&a=2` and `a=2&a=1` differ. So do pairs in another order
///    whose names are the same up to a `[]`. Nothing is decoded or dropped: `%41` and `A` differ, so do `a` and `a=`,
///    and `/x` and `/x?`.
/// 4. `Content-Type` with its parameters, in any order and spelling (RFC 9110, section 8.3.1). `charset=utf-8` does not
///    count, nor does a multipart boundary, which is new with each attempt.
/// 5. The preconditions `If-Match`, `If-None-Match`, `If-Modified-Since` and `If-Unmodified-Since`.
/// 6. The chosen [`headers`](Self::headers): for each the number of its lines and every value, in order.
/// 7. If no scope says who calls, a digest of the request's [credentials](crate::scope::Credentials), so that another
///    caller's key is a `caller_mismatch` and never a replay.
/// 8. The body. A multipart body counts by its parts, in their order: names, file names, types and bytes. Any other
///    counts by its bytes, or by its meaning with [`json`](Self::json) and [`form`](Self::form).
/// 9. With the body, `Content-Encoding` and `Content-Range`, where the request has them (RFC 9110, sections 8.4 and 14.5):
///    the same bytes mean something else then. Codings are compared in any letter case, and `identity` is none.
///
/// # Caveats
///
/// * A retry must send the same body. A client that writes the time into the body of each attempt gets a mismatch,
///   unless the rule [ignores](Self::ignore) that member.
/// * The media type decides how a body is read: without `Content-Type`, or with two lines of it, its bytes count. So do
///   those of a body that is not what its media type says, such as a multipart body without its end, and of JSON with more
///   than 2^20 values, which no text of up to 2 MiB has.
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
// Five independent switches, each with the name of the method that sets it.
#[allow(clippy::struct_excessive_bools)]
pub struct FingerprintRule {
    pub(super) headers: HeaderNames,
    pub(super) json: bool,
    pub(super) ignored_pointers: Texts,
    pub(super) form: bool,
    pub(super) ignore_query: bool,
    pub(super) ignored_parameters: Texts,
    pub(super) ignore_body: bool,
    pub(super) ignore_content_type: bool,
    pub(crate) function: Option<FingerprintFunction>,
}

impl FingerprintRule {
    /// Method, path, query, `Content-Type`, preconditions and body.
    pub const fn new() -> Self {
        Self {
            headers: HeaderNames::NONE,
            json: false,
            ignored_pointers: Texts::NONE,
            form: false,
            ignore_query: false,
            ignored_parameters: Texts::NONE,
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

    /// Compares JSON bodies by what they mean instead of by their bytes: those whose media type is `application/json`
    /// or ends in `+json`.
    ///
    /// White space, the order of an object's members, the escapes in strings and the spelling of numbers do
    /// not count: `{"a":1,"b":2}` and `{ "b": 2.0, "\u0061": 1e0 }` are the same. Numbers are compared as
    /// exact decimals and never rounded. A body that is not valid JSON, or is nested deeper than 128 levels, is
    /// compared by its bytes.
    pub const fn json(mut self) -> Self {
        self.json = true;
        self
    }

    /// Leaves out of JSON bodies what these JSON pointers (RFC 6901) point to, such as `/meta/sent_at` or `/items/0`:
    /// it may change, and it may be missing. Implies [`json`](Self::json); a second call replaces the list. For pointers
    /// known only at run time there is [`ignore_pointers`](Self::ignore_pointers).
    ///
    /// # Panics
    ///
    /// If one of them is not a JSON pointer, or is empty, which points to the whole body. In a `static` rule that is a
    /// compile error.
    pub const fn ignore(mut self, pointers: &'static [&'static str]) -> Self {
        let mut at = 0;
        while at < pointers.len() {
            // An invalid pointer points to nothing, so the fingerprint would go on comparing what it should leave out.
            assert!(
                is_pointer(pointers[at]),
                "one of the JSON pointers to ignore is invalid: write it as in `/meta/sent_at`"
            );
            at += 1;
        }
        set(&mut self.ignored_pointers, Texts::Static(pointers));
        self.json()
    }

    /// Does what [`ignore`](Self::ignore) does, with pointers known only at run time.
    pub fn ignore_pointers(mut self, pointers: impl IntoIterator<Item = JsonPointer>) -> Self {
        let pointers = pointers.into_iter().map(|pointer| pointer.0);
        self.ignored_pointers = Texts::Shared(pointers.collect());
        self.json()
    }

    /// Compares bodies of the media type `application/x-www-form-urlencoded` by what they mean instead of by their
    /// bytes.
    ///
    /// Names and values are decoded (`+` and `%20` are the same), empty pairs left out, and pairs sorted as those of the
    /// query. A body of more than 10,000 pairs is compared by its bytes.
    pub const fn form(mut self) -> Self {
        self.form = true;
        self
    }

    /// The query does not count.
    pub const fn ignore_query(mut self) -> Self {
        self.ignore_query = true;
        self
    }

    /// These parameters of the query do not count, named as they are decoded; a second call replaces the list. For names
    /// known only at run time there is [`ignore_query_parameter_names`](Self::ignore_query_parameter_names).
    pub const fn ignore_query_parameters(mut self, names: &'static [&'static str]) -> Self {
        set(&mut self.ignored_parameters, Texts::Static(names));
        self
    }

    /// Does what [`ignore_query_parameters`](Self::ignore_query_parameters) does, with names known only at run time.
    pub fn ignore_query_parameter_names<N: Into<Box<str>>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        self.ignored_parameters = Texts::Shared(names.into_iter().map(Into::into).collect());
        self
    }

    /// The body does not count.
    pub const fn ignore_body(mut self) -> Self {
        self.ignore_body = true;
        self
    }

    /// `Content-Type` does not count. It still says how the body is read.
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
