use http::HeaderValue;

use super::*;

fn id(credentials: &Credentials, lines: &[(&str, &str)]) -> Option<Vec<u8>> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    credentials.of(SketchedHeaders::of(&headers)).map(|id| id.0)
}

/// Whether two requests with these lines are of one caller.
fn same(one: &[(&str, &str)], other: &[(&str, &str)]) -> bool {
    id(&Credentials::new(), one) == id(&Credentials::new(), other)
}

#[test]
fn each_header_counts_byte_for_byte_but_for_the_scheme() {
    for name in ["authorization", "x-api-key", "api-key", "x-auth-token"] {
        assert!(!same(&[(name, "one")], &[(name, "two")]), "{name}");
        assert!(!same(&[(name, "one")], &[(name, "ONE")]), "{name}");
        assert!(!same(&[(name, "one")], &[]), "{name}");
        assert!(
            !same(&[(name, "a"), (name, "b")], &[(name, "b"), (name, "a")]),
            "{name}"
        );
        assert!(!same(&[(name, "a"), (name, "b")], &[(name, "a")]), "{name}");
    }
    let bearer = |value| [("authorization", value)];
    assert!(same(&bearer("Bearer tok"), &bearer("bEARER tok")));
    assert!(!same(&bearer("Bearer tok"), &bearer("Bearer Tok")));
    assert!(!same(&bearer("Bearer tok"), &bearer("Basic tok")));
    // Another header lets the first part of its value be.
    assert!(!same(&[("x-api-key", "A b")], &[("x-api-key", "a b")]));
    // The same value in two headers are two credentials.
    assert!(!same(&[("x-api-key", "k")], &[("api-key", "k")]));
    assert!(!same(
        &[("x-api-key", "k")],
        &[("x-api-key", "k"), ("x-auth-token", "t")]
    ));
}

#[test]
fn cookies_count_only_without_another_credential() {
    let cookie = |value| ("cookie", value);
    assert!(!same(&[cookie("sid=a")], &[cookie("sid=b")]));
    assert!(!same(&[cookie("sid=a")], &[]));
    let token = ("authorization", "Bearer t");
    assert!(same(&[token, cookie("sid=a")], &[token, cookie("sid=b")]));
    // A header without a value is no credential: what follows from it would be the same for all.
    for blank in [("authorization", ""), ("x-api-key", "  ")] {
        assert!(!same(&[blank, cookie("sid=a")], &[blank, cookie("sid=b")]));
        assert!(same(&[blank], &[]));
    }
}

#[test]
fn the_order_of_cookies_and_their_lines_do_not_count() {
    let cookie = |value| ("cookie", value);
    assert!(same(&[cookie("a=1; b=2")], &[cookie("b=2;a=1")]));
    assert!(same(&[cookie("a=1; b=2")], &[cookie("b=2"), cookie("a=1")]));
    assert!(same(&[cookie("a=1;")], &[cookie(" a = 1 ; ")]));
    // Two of one name are set for different paths, the more precise one first (RFC 6265, section 5.4).
    assert!(!same(&[cookie("a=1; a=2")], &[cookie("a=2; a=1")]));
    assert!(!same(&[cookie("a=1; b=2")], &[cookie("a=1")]));
    assert!(!same(&[cookie("a=1; b=2")], &[cookie("a=12; b=")]));
    assert!(!same(&[cookie("A=1")], &[cookie("a=1")]));
    assert!(!same(&[cookie("one")], &[cookie("two")]));
}

#[test]
fn cookies_that_change_by_themselves_do_not_count() {
    for name in CHANGING.into_iter().chain([
        "AWSALBAPP-0",
        "_ga_1A2B3C",
        "_hjSession_12",
        "__utma",
        "_pk_id.1.1fff",
        "BIGipServerpool_web",
        "csrftoken",
        "XSRF-TOKEN",
        "_csrf",
        "_xsrf",
        "__Host-csrf",
        "CRAFT_CSRF_TOKEN",
        "__Host-next-auth.csrf-token",
        ".AspNetCore.Antiforgery.9TtSrW0hzOs",
    ]) {
        let jar = |value: &str| format!("{name}={value}; sid=a");
        assert!(
            same(&[("cookie", &jar("1"))], &[("cookie", &jar("2"))]),
            "{name}"
        );
        assert!(same(&[("cookie", &format!("{name}=1"))], &[]), "{name}");
    }
    // Sessions and logins whose names only look similar.
    for name in [
        "_gallery_session",
        "__hsmem",
        "hubspotapi",
        "_session_id",
        "sessionid",
        "NSC_AAAC",
        "PHPSESSID",
        "JSESSIONID",
        "connect.sid",
        "_pxl",
        "__Host-session",
        "awsalb",
    ] {
        let jar = |value: &str| format!("{name}={value}");
        assert!(
            !same(&[("cookie", &jar("1"))], &[("cookie", &jar("2"))]),
            "{name}"
        );
    }
}

#[test]
fn the_names_are_listed_once() {
    let mut names: Vec<_> = CHANGING.into_iter().chain(CHANGING_PREFIXES).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn headers_and_cookies_can_be_chosen() {
    let jar = |value: &str| {
        id(
            &Credentials::new().ignore_cookies(["theme"]),
            &[("cookie", value)],
        )
    };
    assert_eq!(jar("theme=dark; sid=a"), jar("theme=light; sid=a; _ga=1"));
    assert_ne!(jar("theme=dark; sid=a"), jar("theme=dark; sid=b"));

    let only = |value: &str| {
        id(
            &Credentials::new().only_cookies(["sid"]),
            &[("cookie", value)],
        )
    };
    assert_eq!(only("sid=a; lang=de"), only("lang=fr; sid=a"));
    assert_ne!(only("sid=a"), only("sid=b"));
    assert_eq!(only("lang=de"), None);
    let none: [&str; 0] = [];
    assert_eq!(
        id(&Credentials::new().only_cookies(none), &[("cookie", "a=1")]),
        None
    );

    let chosen = Credentials::new().headers([HeaderName::from_static("x-client")]);
    let of = |lines: &[(&str, &str)]| id(&chosen, lines);
    assert_ne!(of(&[("x-client", "a")]), of(&[("x-client", "b")]));
    assert_eq!(of(&[("authorization", "Bearer a")]), None);
    assert_ne!(
        of(&[("authorization", "Bearer a"), ("cookie", "sid=a")]),
        of(&[("authorization", "Bearer a"), ("cookie", "sid=b")])
    );
}

#[test]
fn credentials_are_never_shown() {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer canary"));
    let found = Credentials::new().of(SketchedHeaders::of(&headers));
    assert_eq!(format!("{found:?}"), "Some(CallerId(…))");
}
