//! What a request asks for, as one digest: the same key with another fingerprint is a mismatch.
//!
//! [`FingerprintRule`] says what counts. Everything that does goes into one SHA-256 in a fixed order, framed
//! so that no value can pass for another ([`Framed`]); the body is fed from where it lies, without a copy.

use std::fmt;

use http::{HeaderMap, HeaderName, Method, header::CONTENT_TYPE};

use crate::{
    digest::{Framed, Hex},
    names::{HeaderNames, is_header_name, set},
};

mod json;

/// The digest of what a request asks for. See [`FingerprintRule`] for what it is made of.
///
/// `Debug` shows its first eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// What a fingerprint is made of: what must be equal for a request to be a retry.
///
/// 1. The method.
/// 2. The path, in full and as it was sent.
/// 3. The query, split at `&` and its pairs sorted as bytes, so that the order in which a client's library
///    writes a map does not matter. Nothing is decoded or dropped: `%41` and `A` differ, so do `a` and `a=`,
///    and `/x` and `/x?`.
/// 4. The media type of `Content-Type` in lower case, without parameters: neither the spelling of a charset
///    nor a multipart boundary, which is new with each attempt, counts.
/// 5. The chosen [`headers`](Self::headers): for each the number of its lines and every value, in order.
/// 6. Where no scope is configured, a digest of `Authorization`, so that another caller's key is a mismatch
///    and never a replay.
/// 7. The body: its bytes, or its meaning with [`json`](Self::json).
///
/// # Caveats
///
/// * A retry must send the same body. A client that writes the time into the body of each attempt gets a
///   mismatch, and so does a multipart body unless its boundary is fixed.
/// * Because the pairs of the query are sorted as a whole, `a=1&a=2` and `a=2&a=1` are the same request.
/// * Requests that are retried across a change of the rule are mismatches.
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
// Four independent switches, each named by the method that sets it.
#[allow(clippy::struct_excessive_bools)]
pub struct FingerprintRule {
    headers: HeaderNames,
    json: bool,
    ignore_query: bool,
    ignore_body: bool,
    ignore_content_type: bool,
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
        }
    }

    /// Also the values of these headers, named in any case and order; a second call replaces the list. For names
    /// known only at run time there is [`header_names`](Self::header_names).
    ///
    /// # Panics
    ///
    /// If one of them is not the name of a header; a `static` rule with such a name does not compile.
    pub const fn headers(mut self, names: &'static [&'static str]) -> Self {
        let mut at = 0;
        while at < names.len() {
            // A name that matches no header would leave out what the application thought it compares.
            assert!(
                is_header_name(names[at]),
                "a fingerprint names a header whose name is not valid"
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
    /// exact decimals and never rounded. A body that is not JSON, or is nested deeper than 128 levels, is
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

impl Fingerprint {
    /// A fingerprint as a store kept it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to keep.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({}…)", Hex(&self.0[..8]))
    }
}

/// How the body was compared; the tags keep the kinds apart.
const BODY_IGNORED: u8 = 0;
const BODY_RAW: u8 = 1;
const BODY_JSON: u8 = 2;

/// The fingerprint of a request.
///
/// `caller` is the digest of `Authorization` ([`Digester::caller`](crate::scope::Digester::caller)) where
/// no scope is configured and the header is there.
pub(crate) fn fingerprint(
    rule: &FingerprintRule,
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    caller: Option<&[u8]>,
    body: &[u8],
) -> Fingerprint {
    let mut parts = Framed::sha256("idempotent/fingerprint/v1");
    parts.part(method.as_str().as_bytes());
    parts.part(path.as_bytes());
    write_query(&mut parts, query.filter(|_| !rule.ignore_query));
    write_media_type(&mut parts, headers, rule.ignore_content_type);
    write_headers(&mut parts, headers, &rule.headers);
    parts.optional(caller);
    write_body(&mut parts, body, rule);
    Fingerprint(parts.finish())
}

/// No query counts no pairs; an empty query counts one empty pair.
fn write_query(parts: &mut Framed, query: Option<&str>) {
    let mut pairs: Vec<&str> = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .collect();
    pairs.sort_unstable();
    parts.count(pairs.len());
    for pair in pairs {
        parts.part(pair.as_bytes());
    }
}

fn write_media_type(parts: &mut Framed, headers: &HeaderMap, ignore: bool) {
    let lines = headers.get_all(CONTENT_TYPE);
    let lines = || lines.iter().filter(|_| !ignore);
    parts.count(lines().count());
    for line in lines() {
        let line = line.as_bytes();
        let end = line
            .iter()
            .position(|byte| *byte == b';')
            .unwrap_or(line.len());
        parts.part(&line[..end].trim_ascii().to_ascii_lowercase());
    }
}

fn write_headers(parts: &mut Framed, headers: &HeaderMap, names: &HeaderNames) {
    let mut names: Vec<String> = names.iter().map(str::to_ascii_lowercase).collect();
    names.sort_unstable();
    names.dedup();
    parts.count(names.len());
    for name in names {
        let lines = headers.get_all(&name);
        parts.part(name.as_bytes());
        parts.count(lines.iter().count());
        for line in lines {
            parts.part(line.as_bytes());
        }
    }
}

fn write_body(parts: &mut Framed, body: &[u8], rule: &FingerprintRule) {
    if rule.ignore_body {
        return parts.tag(BODY_IGNORED);
    }
    if let Some(meaning) = rule.json.then(|| json::digest(body)).flatten() {
        parts.tag(BODY_JSON);
        parts.part(&meaning);
    } else {
        parts.tag(BODY_RAW);
        parts.part(body);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// A request that each test changes in one place.
    #[derive(Clone)]
    struct Asked {
        rule: FingerprintRule,
        method: Method,
        path: &'static str,
        query: Option<&'static str>,
        headers: Vec<(&'static str, &'static str)>,
        caller: Option<&'static [u8]>,
        body: &'static str,
    }

    impl Asked {
        fn new() -> Self {
            Self {
                rule: FingerprintRule::new(),
                method: Method::POST,
                path: "/api/payments",
                query: Some("b=2&a=1"),
                headers: vec![("content-type", "application/json")],
                caller: None,
                body: r#"{"amount":100}"#,
            }
        }

        fn with(change: impl FnOnce(&mut Self)) -> Fingerprint {
            let mut asked = Self::new();
            change(&mut asked);
            asked.fingerprint()
        }

        fn fingerprint(&self) -> Fingerprint {
            let headers = self.headers.iter().map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_static(value))
            });
            let mut map = HeaderMap::new();
            headers.for_each(|(name, value)| {
                map.append(name, value);
            });
            let body = self.body.as_bytes();
            fingerprint(
                &self.rule,
                &self.method,
                self.path,
                self.query,
                &map,
                self.caller,
                body,
            )
        }
    }

    // A changed digest turns the retries of stored requests into mismatches. If this fails, the change needs
    // a new version in its domain and a note on migration; it is not enough to correct the value.
    #[test]
    fn golden_digests() {
        let hex = |fingerprint: Fingerprint| Hex(fingerprint.as_bytes()).to_string();
        assert_eq!(
            hex(Asked::with(|_| ())),
            "f4d5ee7c58d7f546f0e4d2131ce8794e997dbd4099921e2d1a6557acffeba80b"
        );
        let everything = Asked::with(|asked| {
            asked.rule = FingerprintRule::new().headers(&["X-B", "x-a"]).json();
            asked.headers.extend([("x-a", "1"), ("x-a", "2")]);
            asked.caller = Some(&[7; 32]);
            asked.body = r#"{"b":[1.50,-2e3,0,true,null,"é"],"a":{}}"#;
        });
        assert_eq!(
            hex(everything),
            "4e2730212784dab203c444410528d818164efb36d02cf57c1a03010976ea3a41"
        );
    }

    #[test]
    fn method_path_query_caller_and_body_count() {
        let plain = Asked::with(|_| ());
        assert_eq!(Asked::with(|_| ()), plain);
        let changed = [
            Asked::with(|asked| asked.method = Method::PUT),
            Asked::with(|asked| asked.path = "/v2/api/payments"),
            Asked::with(|asked| asked.query = None),
            Asked::with(|asked| asked.query = Some("")),
            Asked::with(|asked| asked.query = Some("b=2&a=1&a=1")),
            Asked::with(|asked| asked.query = Some("b=2&a=%31")),
            Asked::with(|asked| asked.caller = Some(b"")),
            Asked::with(|asked| asked.caller = Some(b"alice")),
            Asked::with(|asked| asked.body = r#"{"amount":101}"#),
            Asked::with(|asked| asked.body = r#"{"amount": 100}"#),
            Asked::with(|asked| asked.body = ""),
            Asked::with(|asked| asked.headers.clear()),
            Asked::with(|asked| asked.headers = vec![("content-type", "text/plain")]),
        ];
        for (at, one) in changed.iter().enumerate() {
            assert_ne!(*one, plain, "change {at}");
            assert!(
                !changed[..at].contains(one),
                "change {at} equals an earlier one"
            );
        }
    }

    #[test]
    fn the_order_of_the_query_does_not_count() {
        let plain = Asked::with(|_| ());
        assert_eq!(Asked::with(|asked| asked.query = Some("a=1&b=2")), plain);
    }

    #[test]
    fn of_the_content_type_only_the_media_type_counts() {
        let plain = Asked::with(|_| ());
        for same in [
            "application/json; charset=utf-8",
            "Application/JSON;charset=\"UTF-8\"",
            "application/json ;x",
        ] {
            let fingerprint = Asked::with(|asked| asked.headers = vec![("content-type", same)]);
            assert_eq!(fingerprint, plain, "{same}");
        }
    }

    #[test]
    fn other_headers_count_only_where_they_are_chosen() {
        let currency = |rule: &FingerprintRule, lines: &'static [&'static str]| {
            Asked::with(|asked| {
                asked.rule = rule.clone();
                asked
                    .headers
                    .extend(lines.iter().map(|line| ("x-currency", *line)));
            })
        };
        let plain = &FingerprintRule::new();
        assert_eq!(currency(plain, &["EUR"]), currency(plain, &["USD"]));
        let chosen = &FingerprintRule::new().headers(&["X-Currency", "x-other"]);
        assert_ne!(currency(chosen, &["EUR"]), currency(chosen, &["USD"]));
        assert_ne!(currency(chosen, &["EUR"]), currency(chosen, &[]));
        assert_ne!(currency(chosen, &[""]), currency(chosen, &[]));
        assert_ne!(
            currency(chosen, &["EUR", "USD"]),
            currency(chosen, &["USD", "EUR"])
        );
        assert_ne!(
            currency(chosen, &["EUR", "USD"]),
            currency(chosen, &["EURUSD"])
        );
        let names = ["x-other", "x-currency", "x-other"];
        for same in [
            FingerprintRule::new().headers(&["x-other", "x-currency", "X-Other"]),
            FingerprintRule::new().header_names(names.map(HeaderName::from_static)),
        ] {
            assert_eq!(currency(chosen, &["EUR"]), currency(&same, &["EUR"]));
        }
    }

    #[test]
    #[should_panic(expected = "name is not valid")]
    fn a_rule_with_another_name_is_refused() {
        let _ = FingerprintRule::new().headers(&["x-ok", "x currency"]);
    }

    #[test]
    fn what_is_ignored_does_not_count() {
        let ignoring = |rule: FingerprintRule, change: fn(&mut Asked)| {
            let unchanged = Asked::with(|asked| asked.rule = rule.clone());
            let changed = Asked::with(|asked| {
                asked.rule = rule;
                change(asked);
            });
            assert_eq!(changed, unchanged);
        };
        ignoring(FingerprintRule::new().ignore_query(), |asked| {
            asked.query = None;
        });
        ignoring(FingerprintRule::new().ignore_body(), |asked| {
            asked.body = "other";
        });
        ignoring(FingerprintRule::new().ignore_content_type(), |asked| {
            asked.headers.clear();
        });
    }

    #[test]
    fn json_is_compared_by_meaning_and_anything_else_by_its_bytes() {
        let json = |body: &'static str| {
            Asked::with(|asked| {
                asked.rule = FingerprintRule::new().json();
                asked.body = body;
            })
        };
        assert_eq!(json(r#"{"amount":100}"#), json("{ \"amount\" : 1e2 }\n"));
        assert_ne!(
            json(r#"{"amount":100}"#),
            Asked::with(|_| ()),
            "bytes and meaning are apart"
        );
        assert_eq!(
            json("not json"),
            Asked::with(|asked| asked.body = "not json")
        );
        assert_ne!(json("not json"), json("not  json"));
    }

    #[test]
    fn debug_is_short() {
        let fingerprint = Fingerprint::from_bytes([0xab; 32]);
        assert_eq!(format!("{fingerprint:?}"), "Fingerprint(abababababababab…)");
    }

    proptest! {
        #[test]
        fn any_order_of_the_pairs_is_the_same_query(
            (pairs, shuffled) in proptest::collection::vec("[a-c=%]{0,3}", 1..6)
                .prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle())),
        ) {
            let of = |query: &str| {
                let mut parts = Framed::sha256("test");
                write_query(&mut parts, Some(query));
                parts.finish()
            };
            prop_assert_eq!(of(&pairs.join("&")), of(&shuffled.join("&")));
        }

        #[test]
        fn different_pairs_are_different_queries(
            mut a in proptest::collection::vec("[a-b=]{0,2}", 1..4),
            mut b in proptest::collection::vec("[a-b=]{0,2}", 1..4),
        ) {
            let of = |pairs: &[String]| {
                let mut parts = Framed::sha256("test");
                write_query(&mut parts, Some(&pairs.join("&")));
                parts.finish()
            };
            let same = of(&a) == of(&b);
            a.sort();
            b.sort();
            prop_assert_eq!(same, a == b);
        }
    }
}
