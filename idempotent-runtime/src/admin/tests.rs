//! Every route, crossed with who asks and with what a browser and a program send.

use std::collections::BTreeSet;

use axum::{Router, body::Body};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{Access, router, routes::ROUTES};
use crate::{Idempotency, MemoryStore};

/// An answer by its code; one without is `ok`.
async fn code(response: Response<Body>) -> String {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    if status == StatusCode::OK {
        return "ok".into();
    }
    let problem: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(problem["status"], status.as_u16());
    problem["code"].as_str().unwrap().to_owned()
}

fn admin(access: &Access, writes: bool) -> Router {
    let builder = Idempotency::builder().store(MemoryStore::new());
    let engine = builder.admin_writes(writes).build().unwrap();
    let access = access.clone();
    router(engine, move |_| access.clone())
}

/// What a request says of where it comes from, and of its body.
#[derive(Clone, Copy)]
struct Head(&'static [(&'static str, &'static str)]);

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const HOST: (&str, &str) = ("host", "admin.example:8080");
/// Our page, a person, a program, and our page over plain HTTP.
const OWN: [Head; 4] = [
    Head(&[HOST, JSON, ("sec-fetch-site", "same-origin")]),
    Head(&[HOST, JSON, ("sec-fetch-site", "none")]),
    Head(&[HOST, JSON]),
    Head(&[HOST, JSON, ("origin", "http://admin.example:8080")]),
];
/// Another site, another name of the same site, a page without an origin, and one that says two things.
const FOREIGN: [Head; 6] = [
    Head(&[HOST, JSON, ("sec-fetch-site", "cross-site")]),
    Head(&[HOST, JSON, ("sec-fetch-site", "same-site")]),
    Head(&[HOST, JSON, ("origin", "https://evil.example")]),
    Head(&[HOST, JSON, ("origin", "http://admin.example")]),
    Head(&[HOST, JSON, ("origin", "null")]),
    Head(&[
        HOST,
        JSON,
        ("sec-fetch-site", "none"),
        ("sec-fetch-site", "cross-site"),
    ]),
];
/// What a form can send, and nothing.
const NOT_JSON: [Head; 4] = [
    Head(&[HOST, ("content-type", "text/plain")]),
    Head(&[HOST, ("content-type", "application/x-www-form-urlencoded")]),
    Head(&[HOST, ("content-type", "text/plain; application/json")]),
    Head(&[HOST]),
];

async fn ask(admin: Router, method: &str, path: &str, head: Head, body: &str) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in head.0 {
        request = request.header(*name, *value);
    }
    let response = admin
        .oneshot(request.body(Body::from(body.to_owned())).unwrap())
        .await
        .unwrap();
    let headers = response.headers();
    assert_eq!(headers["cache-control"], "no-store", "{method} {path}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    response
}

const RECORD: &str =
    "/api/records/abababababababababababababababababababababababababababababababab";

/// Path, body, and the answer to: nobody; a reader; a writer where the engine lets nobody write; a writer; a writer on
/// another site; a writer who sends no JSON.
type Row = (
    &'static str,
    &'static str,
    String,
    &'static str,
    [&'static str; 6],
);

fn table() -> Vec<Row> {
    const FILE: [&str; 6] = ["denied", "ok", "ok", "ok", "ok", "ok"];
    const GET: [&str; 6] = ["denied", "ok", "ok", "ok", "cross_origin", "ok"];
    const ONE: [&str; 6] = [
        "denied",
        "not_found",
        "not_found",
        "not_found",
        "cross_origin",
        "not_found",
    ];
    const LOOK: [&str; 6] = [
        "denied",
        "not_found",
        "not_found",
        "not_found",
        "cross_origin",
        "not_json",
    ];
    const ACT: [&str; 6] = [
        "denied",
        "read_only",
        "writes_off",
        "not_found",
        "cross_origin",
        "not_json",
    ];
    let record = |rest: &str| format!("{RECORD}{rest}");
    let receipt = r#"{"reason": "r", "response": {"status": 201}}"#;
    vec![
        ("GET", "/", "/".into(), "", FILE),
        ("GET", "/app.js", "/app.js".into(), "", FILE),
        ("GET", "/style.css", "/style.css".into(), "", FILE),
        ("GET", "/api/access", "/api/access".into(), "", GET),
        ("GET", "/api/stats", "/api/stats".into(), "", GET),
        ("GET", "/api/records", "/api/records".into(), "", GET),
        (
            "GET",
            "/api/records/{idempotency_record}",
            record(""),
            "",
            ONE,
        ),
        (
            "POST",
            "/api/lookup",
            "/api/lookup".into(),
            r#"{"endpoint": "POST /pay", "key": "k"}"#,
            LOOK,
        ),
        ("GET", "/api/series", "/api/series".into(), "", GET),
        ("GET", "/api/audit", "/api/audit".into(), "", GET),
        (
            "POST",
            "/api/records/{idempotency_record}/resolve",
            record("/resolve"),
            receipt,
            ACT,
        ),
        (
            "POST",
            "/api/records/{idempotency_record}/release",
            record("/release"),
            r#"{"reason": "r"}"#,
            ACT,
        ),
        (
            "POST",
            "/api/records/{idempotency_record}/forget",
            record("/forget"),
            r#"{"reason": "r"}"#,
            ACT,
        ),
        (
            "POST",
            "/api/records/{idempotency_record}/reveal",
            record("/reveal"),
            r#"{"reason": "r"}"#,
            ACT,
        ),
    ]
}

#[tokio::test]
async fn every_route_answers_whom_it_should_and_nobody_else() {
    let ann = || Access::Write("ann".into());
    let mut listed = BTreeSet::new();
    for (method, route, path, body, [nobody, reader, closed, writer, foreign, not_json]) in table()
    {
        listed.insert((method.to_owned(), route.to_owned()));
        let mut cases = vec![];
        for head in OWN {
            cases.extend([
                (Access::Deny, true, head, nobody),
                (Access::Read, true, head, reader),
                (Access::Write(" ".into()), true, head, reader),
                (ann(), false, head, closed),
                (ann(), true, head, writer),
            ]);
        }
        cases.extend(FOREIGN.map(|head| (ann(), true, head, foreign)));
        cases.extend(NOT_JSON.map(|head| (ann(), true, head, not_json)));
        for head in FOREIGN.into_iter().chain(NOT_JSON) {
            cases.push((Access::Deny, true, head, nobody));
        }
        for (access, writes, head, expected) in cases {
            let response = ask(admin(&access, writes), method, &path, head, body).await;
            let context = format!(
                "{method} {path} by {access:?}, engine {writes}, {:?}",
                head.0
            );
            assert_eq!(code(response).await, expected, "{context}");
        }
    }
    let routes = ROUTES
        .iter()
        .map(|route| (route.method.to_string(), route.path.to_owned()));
    assert_eq!(
        routes.collect::<BTreeSet<_>>(),
        listed,
        "a route that is not in the table"
    );
}

#[tokio::test]
async fn the_guard_is_asked_about_what_is_not_there_too() {
    for (method, path, expected) in [
        ("GET", "/secret", "no_route"),
        ("GET", "/api/records/ab/cd/ef", "no_route"),
        ("DELETE", "/api/stats", "other_method"),
        ("GET", "/api/lookup", "other_method"),
    ] {
        let allowed = ask(admin(&Access::Read, true), method, path, OWN[0], "").await;
        assert_eq!(
            allowed.headers().contains_key("allow"),
            expected == "other_method"
        );
        assert_eq!(code(allowed).await, expected, "{method} {path}");
        let denied = ask(admin(&Access::Deny, true), method, path, OWN[0], "").await;
        assert_eq!(code(denied).await, "denied", "{method} {path}");
    }
}

/// Method, path, body and the answer.
const NONSENSE: &[(&str, &str, &str, &str)] = &[
    ("GET", "/api/records?state=canary", "", "invalid_request"),
    (
        "GET",
        "/api/records?older_than=canary",
        "",
        "invalid_request",
    ),
    ("GET", "/api/records?limit=0", "", "invalid_request"),
    ("GET", "/api/records?limit=1001", "", "invalid_request"),
    (
        "GET",
        "/api/records?max_scan=1000001",
        "",
        "invalid_request",
    ),
    ("GET", "/api/records?canary=1", "", "invalid_request"),
    ("GET", "/api/records?after=nonsense", "", "invalid_cursor"),
    ("GET", "/api/audit?canary=1", "", "invalid_request"),
    ("GET", "/api/records/abc", "", "invalid_id"),
    (
        "POST",
        "/api/lookup",
        r#"{"endpoint": "E", "key": ""}"#,
        "invalid_key",
    ),
    (
        "POST",
        "/api/lookup",
        r#"{"endpoint": "E", "key": "canary\u0001"}"#,
        "invalid_key",
    ),
    (
        "POST",
        "/api/lookup",
        r#"{"endpoint": "E", "key": {"canary": 1}}"#,
        "invalid_request",
    ),
    (
        "POST",
        "/api/lookup",
        r#"{"endpoint": "E", "key": "k", "canary": 1}"#,
        "invalid_request",
    ),
    ("POST", "/api/lookup", "canary", "invalid_request"),
    (
        "POST",
        "/api/records/abab/release",
        r#"{"reason": "r"}"#,
        "invalid_request",
    ),
    (
        "POST",
        "{record}/release",
        r#"{"reason": "  "}"#,
        "invalid_request",
    ),
    (
        "POST",
        "{record}/release",
        r#"{"reason": "r", "response": {"status": 201}}"#,
        "invalid_request",
    ),
    (
        "POST",
        "{record}/resolve",
        r#"{"reason": "r"}"#,
        "invalid_request",
    ),
    (
        "POST",
        "{record}/resolve",
        r#"{"reason": "r", "response": {"status": 100}}"#,
        "invalid_request",
    ),
    (
        "POST",
        "{record}/resolve",
        r#"{"reason": "r", "response": {"status": 600}}"#,
        "invalid_request",
    ),
    (
        "POST",
        "{record}/resolve",
        r#"{"reason": "r", "response": {"status": 201, "headers": [["a", "canary\n"]]}}"#,
        "invalid_request",
    ),
    (
        "POST",
        "{record}/resolve",
        r#"{"reason": "r", "response": {"status": 201, "body": "abc", "body_is_hexadecimal": true}}"#,
        "invalid_request",
    ),
];

#[tokio::test]
async fn a_request_that_says_nonsense_hears_what_is_wrong_and_none_of_its_body() {
    let huge = format!("\"{}\"", "canary".repeat(2 << 20));
    let too_large = [("POST", "/api/lookup", &*huge, "too_large")];
    for (method, path, body, expected) in NONSENSE.iter().chain(&too_large) {
        let path = path.replace("{record}", RECORD);
        let admin = admin(&Access::Write("ann".into()), true);
        let response = ask(admin, method, &path, OWN[0], body).await;
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(
            text.contains(&format!("\"code\":\"{expected}\"")),
            "{path} {body}: {text}"
        );
        assert!(!text.contains("canary"), "{path}: {text}");
    }
}
