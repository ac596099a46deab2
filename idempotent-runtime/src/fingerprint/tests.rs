use http::{HeaderName, HeaderValue};
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
// a new version in its domain and a note on migration; correcting the value here is not enough.
#[test]
fn digests_are_those_of_version_2() {
    let hex = |fingerprint: Fingerprint| Hex(fingerprint.as_bytes()).to_string();
    assert_eq!(
        hex(TestRequest::with(|_| ())),
        "c0be17ead5d79481ac3cad9f40eba9a27884a69c4873ff770000000000000000"
    );
    let everything = TestRequest::with(|request| {
        request.rule = FingerprintRule::new().headers(&["X-B", "x-a"]).json();
        request.headers.extend([("x-a", "1"), ("x-a", "2")]);
        request.caller = Some(&[7; 32]);
        request.body = r#"{"b":[1.50,-2e3,0,true,null,"é"],"a":{}}"#;
    });
    assert_eq!(
        hex(everything),
        "ee0b15d26489a4bc9dc7132f4974d358f8a9b55c1fd96b700707070707070707"
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
fn only_the_media_type_of_the_content_type_counts() {
    let plain = TestRequest::with(|_| ());
    for same in [
        "application/json; charset=utf-8",
        "Application/JSON;charset=\"UTF-8\"",
        "application/json ;x",
    ] {
        let fingerprint =
            TestRequest::with(|request| request.headers = vec![("content-type", same)]);
        assert_eq!(fingerprint, plain, "{same}");
    }
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
fn debug_shows_eight_bytes() {
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
