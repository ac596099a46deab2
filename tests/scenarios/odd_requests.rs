//! Requests that are legal and rare: spellings of one request that differ on the wire, and different requests that look
//! alike (DESIGN.md, sections 3, 5 and 6).

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use idempotent_runtime::{
    FingerprintRule, Idempotency, IdempotencyLayer, Policy, idempotent, scope,
};
use tower::{Layer, ServiceExt};
use tower_http::{cors::CorsLayer, normalize_path::NormalizePathLayer};

use crate::support::{
    Adapter, Client, Conn, CountingHandler, PROTOCOLS, Server, TestRequest, TestResponse,
    in_real_time, send, stream, with_each_adapter, with_paused_clock,
};

/// Runs a case with each adapter, against a server with an engine of this policy.
fn with_each_server(policy: &Policy, case: impl AsyncFn(Server, CountingHandler)) {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            let handler = CountingHandler::new();
            let engine = Idempotency::builder()
                .policy(policy.clone())
                .build()
                .unwrap();
            case(Server::start(adapter.app(&engine, &handler)).await, handler).await;
        }
    });
}

/// Sends these bytes over a connection of their own.
async fn wire(server: &Server, bytes: &str) -> TestResponse {
    let mut conn = Conn::open(server.address).await;
    conn.send(bytes.as_bytes()).await;
    conn.answer().await
}

const BODY: &str = "{\"amount\":100}";

#[test]
fn spellings_of_one_request_on_the_wire_are_one_request() {
    with_each_server(&Policy::new(), async |server, handler| {
        let length = format!("content-length: {}", BODY.len());
        let first = format!(
            "POST /pay HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\n{length}\r\n\r\n{BODY}"
        );
        wire(&server, &first).await.assert_charge(1);
        let (half, rest) = BODY.split_at(7);
        let chunks = format!("7\r\n{half}\r\n{:x}\r\n{rest}\r\n", rest.len());
        let extended = format!(
            "7;a=b;c=\"d\"\r\n{half}\r\n{:x} ; e\r\n{rest}\r\n",
            rest.len()
        );
        for (what, spelling) in [
            (
                "names and spaces",
                format!(
                    "POST /pay HTTP/1.1\r\nHOST:localhost\r\nIDEMPOTENCY-KEY: \t k \t \r\n{length}\r\n\r\n{BODY}"
                ),
            ),
            (
                "absolute form",
                format!(
                    "POST http://localhost/pay HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\n{length}\r\n\r\n{BODY}"
                ),
            ),
            (
                "no host",
                format!("POST /pay HTTP/1.0\r\nidempotency-key: k\r\n{length}\r\n\r\n{BODY}"),
            ),
            (
                "keep-alive of 1.0",
                format!(
                    "POST /pay HTTP/1.0\r\nconnection: keep-alive\r\nidempotency-key: k\r\n{length}\r\n\r\n{BODY}"
                ),
            ),
            (
                "close",
                format!(
                    "POST /pay HTTP/1.1\r\nhost: localhost\r\nconnection: close, idempotency-key\r\nidempotency-key: k\r\n{length}\r\n\r\n{BODY}"
                ),
            ),
            (
                "chunks",
                format!(
                    "POST /pay HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
                ),
            ),
            (
                "trailers",
                format!(
                    "POST /pay HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n{chunks}0\r\nx-sum: 7\r\nidempotency-key: z\r\n\r\n"
                ),
            ),
            (
                "chunk extensions",
                format!(
                    "POST /pay HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\ntransfer-encoding: chunked\r\n\r\n{extended}0\r\n\r\n"
                ),
            ),
            ("an empty line before", format!("\r\n{first}")),
            (
                "a quoted key with a parameter",
                first.replace(": k", ": \"k\";a=1"),
            ),
        ] {
            let answer = wire(&server, &spelling).await;
            assert!(
                answer.replayed() && answer.text() == "charge 1",
                "{what}: {answer:?}"
            );
        }
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn an_empty_body_is_one_however_it_is_framed() {
    with_each_server(&Policy::new(), async |server, handler| {
        let head = "POST /pay HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\n";
        wire(&server, &format!("{head}\r\n")).await.assert_charge(1);
        for framing in [
            "content-length: 0\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            let again = wire(&server, &format!("{head}{framing}")).await;
            again.assert_replay_of_charge(1);
        }
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn ambiguous_framing_is_refused_and_executes_nothing() {
    with_each_server(&Policy::new(), async |server, handler| {
        let head = "POST /pay HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\n";
        for framing in [
            "content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
            "content-length: +2\r\n\r\n{}",
            "content-length: 2, 3\r\n\r\n{}",
            "transfer-encoding: gzip\r\n\r\n{}",
            "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            "idempotency-key : l\r\ncontent-length: 2\r\n\r\n{}",
        ] {
            let answer = wire(&server, &format!("{head}{framing}")).await;
            assert_eq!(answer.status, 400, "{framing}: {answer:?}");
        }
        assert_eq!(handler.starts(), 0);
    });
}

#[test]
fn another_spelling_of_the_target_never_executes_a_second_time() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/p/{id}", post(pay))
            .layer(Extension(engine))
            .with_state(handler.clone());
        for (n, (first, second)) in [
            ("/p/ab", "/p/a%62"),
            ("/p/a%2fb", "/p/a%2Fb"),
            ("/p/q?a=A", "/p/q?a=%41"),
            ("/p/r?a=b+c", "/p/r?a=b%20c"),
            ("/p/t?", "/p/t"),
            ("/p/u?a", "/p/u?a="),
        ]
        .into_iter()
        .enumerate()
        {
            let key = format!("key-{n}");
            let first = TestRequest::post(first).key(&key);
            let second = TestRequest::post(second).key(&key);
            send(&app, &first).await.assert_charge(n + 1);
            let answer = send(&app, &second).await;
            if !answer.replayed() {
                answer.assert_problem(409, "mismatch");
            }
            assert_eq!(handler.starts(), n + 1, "{second:?}");
        }
    });
}

#[idempotent]
async fn pay(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

async fn bare(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

#[test]
fn a_trailing_slash_that_is_trimmed_outside_is_no_other_request() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = NormalizePathLayer::trim_trailing_slash().layer(adapter.app(&engine, &handler));
        for (path, replayed) in [("/pay", false), ("/pay/", true), ("/pay///", true)] {
            let request = TestRequest::post(path).key("k").request();
            let response = app.clone().oneshot(request).await.unwrap();
            let answer = TestResponse::read(response).await;
            assert_eq!((answer.replayed(), answer.text()), (replayed, "charge 1"));
        }
    });
}

/// What many frameworks do for clients that send only GET and POST.
async fn override_method(mut request: Request, next: Next) -> Response {
    let name = HeaderName::from_static("x-http-method-override");
    if let Some(method) = request.headers_mut().remove(name) {
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
    }
    next.run(request).await
}

#[test]
fn an_overridden_method_is_another_request() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = match adapter {
            Adapter::Attribute => Router::new()
                .route("/pay", any(pay))
                .layer(Extension(engine)),
            Adapter::Layer => Router::new()
                .route("/pay", any(bare))
                .layer(IdempotencyLayer::new(engine)),
        };
        let app = middleware::from_fn(override_method).layer(app.with_state(handler.clone()));
        let overridden = TestRequest::post("/pay")
            .key("k")
            .header("x-http-method-override", "DELETE");
        for (request, n, replayed) in [
            (&TestRequest::post("/pay").key("k"), 1, false),
            (&overridden, 2, false),
            (&overridden, 2, true),
            (&TestRequest::new(Method::DELETE, "/pay").key("k"), 2, true),
        ] {
            let response = app.clone().oneshot(request.request()).await.unwrap();
            let answer = TestResponse::read(response.into_response()).await;
            let text = format!("charge {n}");
            assert_eq!((answer.replayed(), answer.text()), (replayed, &*text));
        }
    });
}

#[test]
fn methods_that_nobody_has_heard_of_are_executed_once() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/pay", any(pay))
            .layer(Extension(engine))
            .with_state(handler.clone());
        for (n, method) in ["PURGE", "purge", "M-SEARCH", "TRACE", "OPTIONS", "QUERY"]
            .into_iter()
            .enumerate()
        {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let request = TestRequest::new(method, "/pay").key("k");
            send(&app, &request).await.assert_charge(n + 1);
            send(&app, &request).await.assert_replay_of_charge(n + 1);
        }
    });
}

#[test]
fn a_preflight_claims_nothing_and_its_answer_is_never_replayed() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter
            .app(&engine, &handler)
            .layer(CorsLayer::very_permissive());
        let preflight = TestRequest::new(Method::OPTIONS, "/pay")
            .header("origin", "https://a.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "idempotency-key");
        for n in [1, 2] {
            let allowed = send(&app, &preflight).await;
            assert_eq!(allowed.status, 200);
            assert!(!allowed.lines("access-control-allow-headers").is_empty());
            let request = TestRequest::payment("k").header("origin", "https://a.example");
            let answer = send(&app, &request).await;
            assert_eq!((answer.replayed(), answer.text()), (n == 2, "charge 1"));
            let origin = answer.lines("access-control-allow-origin");
            assert_eq!(
                origin,
                ["https://a.example"],
                "not that of the stored response beside it"
            );
        }
        // Another origin gets its own header with the stored answer.
        let other = TestRequest::payment("k").header("origin", "https://b.example");
        let answer = send(&app, &other).await;
        answer.assert_replay_of_charge(1);
        assert_eq!(
            answer.lines("access-control-allow-origin"),
            ["https://b.example"]
        );
    });
}

#[test]
fn only_what_is_called_json_is_compared_by_its_meaning() {
    let policy = Policy::new().fingerprint(FingerprintRule::new().json());
    with_each_server(&policy, async |server, _| {
        for (n, (media_type, same)) in [
            ("application/json", true),
            ("application/merge-patch+json", true),
            ("application/json-patch+json; charset=utf-8", true),
            ("APPLICATION/VND.API+JSON;profile=\"x\"", true),
            ("text/json", false),
            ("application/jsonl", false),
            ("application/x-ndjson", false),
            ("application/json5", false),
        ]
        .into_iter()
        .enumerate()
        {
            let request = |body: &str| {
                let request = TestRequest::post("/pay").key(&format!("k{n}"));
                request
                    .header("content-type", media_type)
                    .body(body.to_owned())
            };
            server
                .send(&request(r#"{"a":1,"b":[1.0]}"#))
                .await
                .assert_charge(n + 1);
            let again = server.send(&request("{ \"b\": [1],\n\"a\": 1e0 }")).await;
            if same {
                again.assert_replay_of_charge(n + 1);
            } else {
                again.assert_problem(409, "mismatch");
            }
        }
    });
}

#[test]
fn a_byte_order_mark_and_other_texts_that_are_no_json_are_compared_by_their_bytes() {
    let policy = Policy::new().fingerprint(FingerprintRule::new().json());
    with_each_server(&policy, async |server, handler| {
        for (n, text) in [
            "\u{feff}{\"a\":1}",
            "{\"a\":1,}",
            "{\"a\":1}{}",
            "NaN",
            "{'a':1}",
            "",
            " ",
        ]
        .into_iter()
        .enumerate()
        {
            let request = |body: &str| {
                let request = TestRequest::post("/pay").key(&format!("k{n}"));
                request
                    .header("content-type", "application/json")
                    .body(body.to_owned())
            };
            server.send(&request(text)).await.assert_charge(n + 1);
            server
                .send(&request(text))
                .await
                .assert_replay_of_charge(n + 1);
            let other = server.send(&request(&format!("{text} "))).await;
            other.assert_problem(409, "mismatch");
            assert_eq!(handler.starts(), n + 1);
        }
    });
}

#[test]
fn a_host_is_one_scope_over_each_protocol() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            for first in PROTOCOLS {
                let handler = CountingHandler::new();
                let engine = Idempotency::builder()
                    .scope(scope::header("host"))
                    .build()
                    .unwrap();
                let server = Server::start(adapter.app(&engine, &handler)).await;
                let payment = TestRequest::payment("k");
                let answer = Client::open(first, &server).await.send(&payment).await;
                answer.assert_charge(1);
                for protocol in PROTOCOLS {
                    let again = Client::open(protocol, &server).await.send(&payment).await;
                    again.assert_replay_of_charge(1);
                }
                // Another host is another scope.
                let wire = String::from_utf8(payment.wire()).unwrap();
                let other = wire.replace("host: localhost", "host: other");
                self::wire(&server, &other).await.assert_charge(2);
            }
        }
    });
}

#[test]
fn rare_statuses_and_bytes_in_headers_replay_as_they_were() {
    with_each_adapter(async |adapter| {
        for status in [
            200, 201, 203, 206, 226, 299, 300, 304, 402, 418, 422, 451, 500, 511, 599, 600, 999,
        ] {
            let handler = CountingHandler::responding(move |n| {
                let mut response = Response::new(Body::from(format!("charge {n}")));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                let headers = response.headers_mut();
                headers.insert("x-latin", HeaderValue::from_bytes(b"caf\xe9 \xff").unwrap());
                headers.append("x-twice", HeaderValue::from_static(""));
                headers.append("x-twice", HeaderValue::from_static("b, c"));
                headers.append("content-range", HeaderValue::from_static("bytes 0-7/100"));
                response
            });
            let engine = Idempotency::builder().build().unwrap();
            let app = adapter.app(&engine, &handler);
            let first = send(&app, &TestRequest::payment("k")).await;
            let mut again = send(&app, &TestRequest::payment("k")).await;
            assert!(again.replayed(), "{status}: {again:?}");
            again.headers.remove("idempotent-replay");
            assert_eq!(again, first, "{status}");
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_client_of_http_1_0_gets_a_stream_and_its_replay_whole() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            let handler = CountingHandler::responding(|_| stream(["ans", "wer"]).into_response());
            let engine = Idempotency::builder().build().unwrap();
            let server = Server::start(adapter.app(&engine, &handler)).await;
            let request = "POST /pay HTTP/1.0\r\nidempotency-key: k\r\ncontent-length: 0\r\n\r\n";
            for _ in 0..2 {
                let mut conn = Conn::open(server.address).await;
                conn.send(request.as_bytes()).await;
                let (status, headers) = conn.try_head().await.unwrap();
                assert_eq!(status, 200);
                assert!(
                    !headers.contains_key("transfer-encoding"),
                    "1.0 knows no chunks"
                );
                let body = conn.rest().await;
                assert_eq!(body, "answer");
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn lines_of_cookies_are_one_caller_over_each_protocol() {
    in_real_time(async {
        for first in PROTOCOLS {
            let handler = CountingHandler::new();
            let engine = Idempotency::builder().build().unwrap();
            let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;
            let one_line = TestRequest::payment("k").header("cookie", "session=a; theme=dark");
            let crumbs = TestRequest::payment("k")
                .header("cookie", "session=a")
                .header("cookie", "theme=dark");
            Client::open(first, &server)
                .await
                .send(&one_line)
                .await
                .assert_charge(1);
            for protocol in PROTOCOLS {
                for request in [&one_line, &crumbs] {
                    let again = Client::open(protocol, &server).await.send(request).await;
                    again.assert_replay_of_charge(1);
                }
            }
        }
    });
}

#[test]
fn two_lines_of_the_media_type_count_in_their_order() {
    with_each_server(&Policy::new(), async |server, handler| {
        let request = |types: &[&str]| {
            let request = TestRequest::post("/pay").key("k").body("{}");
            types.iter().fold(request, |request, line| {
                request.header("content-type", line)
            })
        };
        let (json, text) = ("application/json", "text/plain");
        server.send(&request(&[json, text])).await.assert_charge(1);
        server
            .send(&request(&[json, text]))
            .await
            .assert_replay_of_charge(1);
        for other in [&[text, json][..], &[json], &[]] {
            let answer = server.send(&request(other)).await;
            answer.assert_problem(409, "mismatch");
        }
        assert_eq!(handler.starts(), 1);
    });
}
