use http::{HeaderName, HeaderValue};
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
