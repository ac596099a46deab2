//! No request, however malformed, makes the engine panic or hang, or gets past its checks.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Request};
use idempotent_runtime::{FingerprintRule, Idempotency, MemoryStore, Policy};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tower::ServiceExt;

use crate::support::{
    Adapter, Conn, CountingHandler, H2Conn, Server, TestRequest, TestResponse, in_real_time,
    with_paused_clock,
};

/// Bytes that are hard for parsers, alone and in combination.
const PIECES: [&[u8]; 24] = [
    b"",
    b" ",
    b"\t",
    b"\"",
    b"\\",
    b"\"\"",
    b"\"a\"",
    b"a",
    b";",
    b",",
    b"=",
    b"\xff",
    b"\x80",
    b"\xc3\xa4",
    b"%00",
    b"?1",
    b":YQ==:",
    b"@1",
    b"(",
    b")",
    b"\"a\\",
    b"00000000",
    b"*",
    b"{",
];

fn bytes(random: &mut StdRng) -> Vec<u8> {
    let pieces = random.random_range(0..6);
    let mut bytes: Vec<u8> = (0..pieces)
        .flat_map(|_| PIECES.choose(random).unwrap().iter().copied())
        .collect();
    if random.random_ratio(1, 20) {
        bytes = bytes.repeat(random.random_range(1..200));
    }
    bytes
}

#[test]
fn every_malformed_request_is_answered() {
    with_paused_clock(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            // Given an engine with every rule that reads what a client sends.
            let handler = CountingHandler::new();
            let rule = FingerprintRule::new()
                .json()
                .headers(&["x-currency", "accept"]);
            let policy = Policy::new().fingerprint(rule).max_body(200).wait(false);
            let store = MemoryStore::builder().max_records(300).build();
            let engine = Idempotency::builder()
                .policy(policy)
                .store(store.clone())
                .build()
                .unwrap();
            let app = adapter.app(&engine, &handler);
            let names = [
                "idempotency-key",
                "idempotency-key",
                "idempotency-key",
                "authorization",
                "content-type",
                "traceparent",
                "x-currency",
                "content-length",
                "transfer-encoding",
                "connection",
            ];
            let seed: u64 = rand::random();
            let mut random = StdRng::seed_from_u64(seed);

            // When thousands of malformed requests are sent, then each is answered.
            for _ in 0..5000 {
                let mut request = Request::new(Body::from(bytes(&mut random)));
                let methods = [Method::POST, Method::PUT, Method::GET, Method::CONNECT];
                *request.method_mut() = methods.choose(&mut random).unwrap().clone();
                let path = String::from_utf8_lossy(&bytes(&mut random)).replace('\u{fffd}', "%ff");
                let uri = format!("/pay?{path}").parse();
                *request.uri_mut() = uri.unwrap_or_else(|_| "/pay".parse().unwrap());
                for _ in 0..random.random_range(0..4) {
                    let name = HeaderName::from_static(names.choose(&mut random).unwrap());
                    if let Ok(value) = HeaderValue::from_bytes(&bytes(&mut random)) {
                        request.headers_mut().append(name, value);
                    }
                }
                let shown = format!("seed {seed}: {request:?}");
                let answer = TestResponse::read(app.clone().oneshot(request).await.unwrap()).await;
                let status = answer.status.as_u16();
                assert!(
                    [201, 400, 405, 409, 413, 503].contains(&status),
                    "{shown} {answer:?}"
                );
            }
            assert!(store.len() <= 300);
        }
    });
}

#[test]
fn deeply_nested_and_very_long_json_is_fingerprinted() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let rule = FingerprintRule::new().json();
        let policy = Policy::new().fingerprint(rule).wait(false);
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let app = Adapter::Attribute.app(&engine, &handler);
        let bodies = [
            "[".repeat(1 << 20),
            r#"{"a":"#.repeat(200_000),
            format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
            format!("1e{}", "9".repeat(1000)),
            format!("[{}]", "1e999999999,".repeat(1000) + "1"),
            format!("0.{}1", "0".repeat(100_000)),
            "\"\\ud800\"".to_owned(),
        ];
        for (n, body) in bodies.into_iter().enumerate() {
            let request = TestRequest::post("/pay").key(&format!("k{n}")).body(body);
            crate::support::send(&app, &request)
                .await
                .assert_charge(n + 1);
            crate::support::send(&app, &request)
                .await
                .assert_replay_of_charge(n + 1);
        }
    });
}

#[test]
fn garbage_on_the_wire_leaves_the_server_healthy() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let store = MemoryStore::new();
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;
        let valid = TestRequest::payment("k").wire();
        let seed: u64 = rand::random();
        let mut random = StdRng::seed_from_u64(seed);

        // When valid requests with a few bytes changed, cut off anywhere, are sent on many connections.
        for _ in 0..500 {
            let mut wire = valid.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..wire.len());
                wire[at] = random.random();
            }
            wire.truncate(random.random_range(0..=wire.len()));
            let mut conn = Conn::open(server.address).await;
            conn.send(&wire).await;
            conn.half_close().await;
            let _whatever = conn.try_answer().await;
        }

        // Then a valid request is served, and no record was left without an execution.
        let valid = TestRequest::payment("valid");
        let answer = server.send(&valid).await;
        assert_eq!(answer.status, 201, "seed {seed}: {answer:?}");
        assert!(server.send(&valid).await.replayed());
        let mut conn = H2Conn::open(server.address).await;
        assert!(conn.send(&valid).await.answer().await.replayed());
        assert!(
            store.len() <= handler.starts(),
            "a record without an execution"
        );
    });
}

#[test]
fn pipelined_duplicates_on_one_connection_execute_once() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;
        let mut conn = Conn::open(server.address).await;
        conn.send(&TestRequest::payment("k").wire().repeat(20))
            .await;
        conn.answer().await.assert_charge(1);
        for _ in 1..20 {
            conn.answer().await.assert_replay_of_charge(1);
        }
        assert_eq!(handler.starts(), 1);
    });
}
