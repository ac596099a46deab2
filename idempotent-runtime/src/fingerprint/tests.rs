use std::{collections::HashSet, fmt::Write};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

/// A request that each test changes in one place.
#[derive(Clone)]
struct TestRequest {
    rule: FingerprintRule,
    method: Method,
    path: &'static str,
    query: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    caller: Option<&'static [u8; 32]>,
    body: &'static str,
}

impl TestRequest {
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
        let mut request = Self::new();
        change(&mut request);
        request.fingerprint()
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
            begin(&self.rule, &self.method),
            self.path,
            self.query,
            SketchedHeaders::of(&map),
            self.caller,
            body,
        )
    }
}

// A changed digest turns the retries of stored requests into mismatches. If this fails, the change needs
// a new version in its domain and a note on migration; correcting the value here is not enough.
#[test]
fn digests_are_those_of_version_2() {
    let hex = |fingerprint: Fingerprint| Hex(fingerprint.as_bytes()).to_string();
    assert_eq!(
        hex(TestRequest::with(|_| ())),
        "c36365d4cd194457db448cccc402bf4315cfcad9f2f173200000000000000000"
    );
    let everything = TestRequest::with(|request| {
        request.rule = FingerprintRule::new().headers(&["X-B", "x-a"]).json();
        request
            .headers
            .extend([("x-a", "1"), ("x-a", "2"), ("if-match", "\"v1\"")]);
        request.caller = Some(&[7; 32]);
        request.body = r#"{"b":[1.50,-2e3,0,true,null,"é"],"a":{}}"#;
    });
    assert_eq!(
        hex(everything),
        "3bbdfa564134834ec596d0eb1d0349781559127f991f75150707070707070707"
    );
}

#[test]
fn method_path_query_caller_and_body_count() {
    let plain = TestRequest::with(|_| ());
    assert_eq!(TestRequest::with(|_| ()), plain);
    let changed = [
        TestRequest::with(|request| request.method = Method::PUT),
        TestRequest::with(|request| request.path = "/v2/api/payments"),
        TestRequest::with(|request| request.query = None),
        TestRequest::with(|request| request.query = Some("")),
        TestRequest::with(|request| request.query = Some("b=2&a=1&a=1")),
        TestRequest::with(|request| request.query = Some("b=2&a=%31")),
        TestRequest::with(|request| request.caller = Some(&[1; 32])),
        TestRequest::with(|request| request.caller = Some(&[2; 32])),
        TestRequest::with(|request| request.body = r#"{"amount":101}"#),
        TestRequest::with(|request| request.body = r#"{"amount": 100}"#),
        TestRequest::with(|request| request.body = ""),
        TestRequest::with(|request| request.headers.clear()),
        TestRequest::with(|request| request.headers = vec![("content-type", "text/plain")]),
        TestRequest::with(|request| request.headers.push(("content-type", "application/json"))),
        TestRequest::with(|request| request.headers.push(("if-match", "\"v1\""))),
        TestRequest::with(|request| request.headers.push(("if-match", "\"v2\""))),
        TestRequest::with(|request| request.headers.push(("if-none-match", "\"v1\""))),
        TestRequest::with(|request| request.headers.push(("if-modified-since", "\"v1\""))),
        TestRequest::with(|request| request.headers.push(("if-unmodified-since", "\"v1\""))),
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
fn two_fingerprints_show_whether_they_differ_in_the_caller() {
    let of = |caller, body| {
        TestRequest::with(|request| {
            request.caller = caller;
            request.body = body;
        })
    };
    let callers = [None, Some(&[1; 32]), Some(&[2; 32])];
    for one in callers {
        let first = of(one, "a");
        assert_eq!(of(one, "a").difference(&first), None);
        assert_eq!(of(one, "b").difference(&first), Some(Difference::Request));
        for other in callers.into_iter().filter(|other| *other != one) {
            for body in ["a", "b"] {
                let difference = of(other, body).difference(&first);
                assert_eq!(difference, Some(Difference::Caller), "{one:?} {other:?}");
            }
        }
    }
    // All of the caller's digest counts, not only the part that is kept.
    let mut similar = [1; 32];
    similar[31] = 2;
    let one = TestRequest::with(|request| request.caller = Some(&[1; 32]));
    let mut other = TestRequest::new();
    other.caller = Some(Box::leak(Box::new(similar)));
    assert_ne!(one, other.fingerprint());
}

#[test]
fn the_order_of_the_query_does_not_count() {
    let plain = TestRequest::with(|_| ());
    assert_eq!(
        TestRequest::with(|request| request.query = Some("a=1&b=2")),
        plain
    );
}

#[test]
fn headers_count_only_if_they_are_chosen() {
    let currency = |rule: &FingerprintRule, lines: &'static [&'static str]| {
        TestRequest::with(|request| {
            request.rule = rule.clone();
            request
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
fn what_the_bytes_are_counts_where_the_request_says_it() {
    let with = |headers: &[(&'static str, &'static str)], rule: FingerprintRule| {
        TestRequest::with(|request| {
            request.rule = rule;
            request.headers.extend(headers);
        })
    };
    // Each line is one kind of request.
    let kinds: &[&[&[(&str, &str)]]] = &[
        &[
            &[],
            &[("content-encoding", "")],
            &[("content-encoding", "identity")],
            &[("content-encoding", " Identity ,")],
        ],
        &[
            &[("content-encoding", "gzip")],
            &[("content-encoding", "GZIP")],
            &[("content-encoding", "identity, gzip")],
        ],
        &[&[("content-encoding", "br")]],
        &[
            &[("content-encoding", "gzip, br")],
            &[("content-encoding", "gzip"), ("content-encoding", "br")],
        ],
        &[&[("content-encoding", "br, gzip")]],
        &[&[("content-encoding", "content-range")]],
        &[&[("content-range", "bytes 0-99/200")]],
        &[&[("content-range", "bytes 100-199/200")]],
        &[&[
            ("content-range", "bytes 0-99/200"),
            ("content-encoding", "gzip"),
        ]],
    ];
    let mut seen = HashSet::new();
    for kind in kinds {
        let of = |headers: &&[_]| with(headers, FingerprintRule::new());
        let fingerprints: HashSet<_> = kind.iter().map(of).collect();
        assert_eq!(fingerprints.len(), 1, "{kind:?}");
        assert!(seen.is_disjoint(&fingerprints), "{kind:?}");
        seen.extend(fingerprints);
        // Where the body does not count, it does not matter what its bytes are.
        for headers in *kind {
            let without_body = || FingerprintRule::new().ignore_body();
            assert_eq!(with(headers, without_body()), with(&[], without_body()));
        }
    }
}

#[test]
#[should_panic(expected = "has an invalid name")]
fn a_rule_with_an_invalid_header_name_is_refused() {
    let _ = FingerprintRule::new().headers(&["x-ok", "x currency"]);
}

#[test]
fn ignored_parts_do_not_count() {
    let ignoring = |rule: FingerprintRule, change: fn(&mut TestRequest)| {
        let unchanged = TestRequest::with(|request| request.rule = rule.clone());
        let changed = TestRequest::with(|request| {
            request.rule = rule;
            change(request);
        });
        assert_eq!(changed, unchanged);
    };
    ignoring(FingerprintRule::new().ignore_query(), |request| {
        request.query = None;
    });
    let names = FingerprintRule::new().ignore_query_parameters(&["no nce", "b"]);
    ignoring(names, |request| {
        request.query = Some("a=1&no+nce=7&%62=3&b");
    });
    let names = FingerprintRule::new().ignore_query_parameter_names([String::from("b")]);
    ignoring(names, |request| request.query = Some("b=&a=1"));
    let pointers = FingerprintRule::new().ignore(&["/at"]);
    ignoring(pointers, |request| {
        request.body = r#"{"at":1,"amount":1e2}"#;
    });
    let pointers = FingerprintRule::new().ignore_pointers(["/at".parse().unwrap()]);
    ignoring(pointers, |request| {
        request.body = r#"{"amount":100.0,"at":1}"#;
    });
    ignoring(FingerprintRule::new().ignore_body(), |request| {
        request.body = "other";
    });
    ignoring(FingerprintRule::new().ignore_content_type(), |request| {
        request.headers.clear();
    });
}

#[test]
fn json_is_compared_by_meaning_and_other_bodies_by_their_bytes() {
    let json = |body: &'static str| {
        TestRequest::with(|request| {
            request.rule = FingerprintRule::new().json();
            request.body = body;
        })
    };
    assert_eq!(json(r#"{"amount":100}"#), json("{ \"amount\" : 1e2 }\n"));
    assert_ne!(
        json(r#"{"amount":100}"#),
        TestRequest::with(|_| ()),
        "a digest of the bytes is not one of the meaning"
    );
    assert_eq!(
        json("not json"),
        TestRequest::with(|request| request.body = "not json")
    );
    assert_ne!(json("not json"), json("not  json"));
}

#[test]
#[should_panic(expected = "one of the JSON pointers to ignore is invalid")]
fn a_rule_with_an_invalid_pointer_is_refused() {
    let _ = FingerprintRule::new().ignore(&["/ok", "sent_at"]);
}

#[test]
fn a_body_is_read_only_as_its_media_type_says() {
    let of = |rule: FingerprintRule, types: &[&'static str], body: &'static str| {
        TestRequest::with(|request| {
            request.rule = rule;
            request.headers = types.iter().map(|value| ("content-type", *value)).collect();
            request.body = body;
        })
    };
    let json = || FingerprintRule::new().json();
    let form = || FingerprintRule::new().form();
    let equal = |rule: fn() -> FingerprintRule, types: &[&'static str], a, b| {
        of(rule(), types, a) == of(rule(), types, b)
    };
    for types in ["application/json", "Application/Problem+JSON; v=1"] {
        assert!(equal(json, &[types], "1.10", "1.1"), "{types}");
        assert!(!equal(form, &[types], "1.10", "1.1"), "{types}");
    }
    for types in [
        &["text/plain"] as &[_],
        &[],
        &["application/json"; 2],
        &["application/json; x"],
    ] {
        assert!(!equal(json, types, "1.10", "1.1"), "{types:?}");
    }
    let urlencoded = "application/X-www-form-urlencoded; charset=UTF-8";
    assert!(equal(form, &[urlencoded], "a=1&b=2", "b=2&a=1"));
    assert!(!equal(json, &[urlencoded], "a=1&b=2", "b=2&a=1"));
    for types in [
        "text/plain",
        "application/json",
        "multipart/form-data; boundary=x",
    ] {
        assert!(!equal(form, &[types], "a=1&b=2", "b=2&a=1"), "{types}");
    }
}

#[test]
fn a_multipart_body_that_cannot_be_parsed_counts_by_its_bytes() {
    let of = |boundary: &'static str, body: &'static str| {
        TestRequest::with(|request| {
            request.headers = vec![("content-type", boundary)];
            request.body = body;
        })
    };
    let (x, y) = ("multipart/mixed; boundary=x", "multipart/mixed; boundary=y");
    let parsed = of(x, "--x\r\n\r\n1\r\n--x--");
    assert_eq!(parsed, of(y, "--y\r\n\r\n1\r\n--y--"));
    // Of the same bytes, one can be parsed.
    assert_ne!(parsed, of(y, "--x\r\n\r\n1\r\n--x--"));
    assert_ne!(of(x, "--x\r\n\r\n1\r\n--x"), of(y, "--y\r\n\r\n1\r\n--y"));
    assert_eq!(of(x, "--x\r\n\r\n1"), of(x, "--x\r\n\r\n1"));
}

#[test]
fn debug_shows_eight_bytes() {
    let fingerprint = Fingerprint::from_bytes([0xab; 32]);
    assert_eq!(format!("{fingerprint:?}"), "Fingerprint(abababababababab…)");
}

/// Pairs of a form as they are meant.
type Form = Vec<(String, String)>;

fn form() -> impl Strategy<Value = Form> {
    proptest::collection::vec(("[a-c \\[\\]]{0,3}", "[a +%&=é]{0,3}"), 0..6)
}

/// Writes each byte as itself, `+` or an escape, by chance, and leaves empty pairs in between.
fn encode(form: &[(String, String)], mut chance: u64) -> String {
    let mut next = move || {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        chance >> 60
    };
    let mut text = String::new();
    for (name, value) in form {
        for (part, end) in [(name, '='), (value, '&')] {
            for byte in part.bytes() {
                match (byte, next()) {
                    (b' ', 0..8) => text.push('+'),
                    (b'a'..=b'z' | b'[' | b']', 0..8) => text.push(char::from(byte)),
                    (_, 8..12) => write!(text, "%{byte:02x}").unwrap(),
                    _ => write!(text, "%{byte:02X}").unwrap(),
                }
            }
            text.push(end);
        }
        if next() < 4 {
            text.push('&');
        }
    }
    text
}

/// What stays the same however pairs of other names are moved.
fn by_group(form: &[(String, String)]) -> std::collections::BTreeMap<&str, Form> {
    let mut groups = std::collections::BTreeMap::<_, Form>::new();
    for pair in form {
        let end = pair.0.find("[]").map_or(pair.0.len(), |end| end + 2);
        groups.entry(&pair.0[..end]).or_default().push(pair.clone());
    }
    groups
}

fn form_fingerprint(body: &str) -> Fingerprint {
    let mut headers = HeaderMap::new();
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, form);
    let rule = FingerprintRule::new().form();
    fingerprint(
        &rule,
        begin(&rule, &Method::POST),
        "/",
        None,
        SketchedHeaders::of(&headers),
        None,
        body.as_bytes(),
    )
}

fn multipart_fingerprint(parts: &[(String, String, String)], boundary: &str) -> Fingerprint {
    let mut headers = HeaderMap::new();
    let value = format!("multipart/form-data; boundary=\"{boundary}\"");
    headers.insert(CONTENT_TYPE, value.parse().unwrap());
    let mut body = String::new();
    for (name, file, bytes) in parts {
        write!(
 body,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\r\n{bytes}\r\n"
 ).unwrap();
    }
    write!(body, "--{boundary}--\r\n").unwrap();
    let rule = FingerprintRule::new();
    fingerprint(
        &rule,
        begin(&rule, &Method::POST),
        "/",
        None,
        SketchedHeaders::of(&headers),
        None,
        body.as_bytes(),
    )
}

proptest! {
    #[test]
    fn forms_are_equal_exactly_if_they_mean_the_same(
        (a, b) in form().prop_flat_map(|form| (Just(form.clone()), Just(form).prop_shuffle())),
        other in form(),
        chance in any::<[u64; 2]>(),
    ) {
        let of = |form: &[(String, String)], chance| form_fingerprint(&encode(form, chance));
        prop_assert_eq!(of(&a, chance[0]), of(&a, chance[1]), "{:?}", a);
        prop_assert_eq!(of(&a, chance[0]) == of(&b, chance[1]), by_group(&a) == by_group(&b));
        prop_assert_eq!(of(&a, chance[0]) == of(&other, chance[1]), by_group(&a) == by_group(&other));
    }

    #[test]
    fn queries_are_equal_exactly_if_the_pairs_of_each_name_are(
        (a, b) in proptest::collection::vec("[a-b=]{0,2}", 1..5)
            .prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle())),
        other in proptest::collection::vec("[a-b=]{0,2}", 1..5),
    ) {
        let of = |pairs: &[String]| {
            let mut parts = Framed::sha256("test");
            pairs::write_query(&mut parts, Some(&pairs.join("&")), &FingerprintRule::new());
            parts.finish()
        };
        let by_name = |pairs: &[String]| {
            let mut names = std::collections::BTreeMap::<String, Vec<String>>::new();
            for pair in pairs {
                let name = pair.split('=').next().unwrap_or_default();
                names.entry(name.to_owned()).or_default().push(pair.clone());
            }
            names
        };
        prop_assert_eq!(of(&a) == of(&b), by_name(&a) == by_name(&b));
        prop_assert_eq!(of(&a) == of(&other), by_name(&a) == by_name(&other));
    }

    #[test]
    fn multipart_bodies_are_equal_exactly_if_their_parts_are(
        parts in proptest::collection::vec(("[ab]{0,2}", "[ab]{0,1}", "[ab\r\n-]{0,6}"), 0..4),
        others in proptest::collection::vec(("[ab]{0,2}", "[ab]{0,1}", "[ab\r\n-]{0,6}"), 0..4),
        boundaries in ["[x-z]{1,4}", "[x-z '()+_,./:=?-]{0,8}[x-z]"],
    ) {
        let first = multipart_fingerprint(&parts, &boundaries[0]);
        prop_assert_eq!(first, multipart_fingerprint(&parts, &boundaries[1]));
        prop_assert_eq!(first == multipart_fingerprint(&others, &boundaries[1]), parts == others);
    }
}
