//! Replays: byte-identical, and without what belongs to one client or one exchange (DESIGN.md, section 3;
//! invariants I4, I8, I14).

use axum::response::{AppendHeaders, IntoResponse};
use bytes::Bytes;
use http::StatusCode;
use idempotent_runtime::{Caller, Idempotency, Policy, Scope, scope};

use crate::support::{
    Adapter, Conn, CountingHandler, H2Conn, Server, TestRequest, in_real_time, send, stream,
    with_each_adapter,
};

/// A response with every kind of header that a replay keeps or leaves out.
fn response_with_many_headers(n: usize) -> axum::response::Response {
    let stored = [
        ("content-type", "application/x-thing"),
        ("link", "</a>; rel=a"),
        ("link", "</b>; rel=b"),
        ("link", "</a>; rel=a"),
        ("x-order", "2"),
        ("x-order", "1"),
        ("retry-after", "7"),
        ("location", "/things/1"),
        ("etag", "\"1\""),
        ("cache-control", "private"),
        ("vary", "accept"),
        ("vary", "origin"),
    ];
    let left_out = [
        ("set-cookie", "session=secret"),
        ("set-cookie", "other=secret"),
        ("date", "Tue, 15 Nov 1994 08:12:31 GMT"),
        ("connection", "X-Hop"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "secret"),
        ("www-authenticate", "Basic"),
        ("authorization", "Bearer secret"),
        ("x-auth-token", "secret"),
        ("x-csrf-token", "secret"),
        ("x-api-key", "secret"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("x-request-id", "secret"),
        ("server-timing", "db;dur=53"),
    ];
    let body = Bytes::from((0..=255).cycle().take(5000).collect::<Vec<u8>>());
    let status = StatusCode::from_u16(418).unwrap();
    let n = [("x-execution", n.to_string())];
    (
        status,
        AppendHeaders(stored),
        AppendHeaders(left_out),
        AppendHeaders(n),
        body,
    )
        .into_response()
}

const STORED: [&str; 9] = [
    "content-type",
    "link",
    "x-order",
    "retry-after",
    "location",
    "etag",
    "cache-control",
    "vary",
    "x-execution",
];
const LEFT_OUT: [&str; 12] = [
    "set-cookie",
    "keep-alive",
    "x-hop",
    "www-authenticate",
    "authorization",
    "x-auth-token",
    "x-csrf-token",
    "x-api-key",
    "traceparent",
    "x-request-id",
    "server-timing",
    "connection",
];

#[test]
fn a_replay_is_the_same_response_without_the_headers_of_one_exchange() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            let handler = CountingHandler::responding(response_with_many_headers);
            let engine = Idempotency::builder().build().unwrap();
            let server = Server::start(adapter.app(&engine, &handler)).await;

            // When the same request is sent again, over either protocol.
            let first = server.send(&TestRequest::payment("k")).await;
            let again = server.send(&TestRequest::payment("k")).await;
            let mut conn = H2Conn::open(server.address).await;
            let by_h2 = conn.send(&TestRequest::payment("k")).await.answer().await;

            // Then status, body and headers are the same, in their order and number.
            assert_eq!(first.lines("x-execution"), ["1"]);
            assert_eq!(
                first.lines("set-cookie").len(),
                2,
                "the first client gets every header"
            );
            assert!(!first.replayed());
            for again in [again, by_h2] {
                assert_eq!((again.status, &again.body), (first.status, &first.body));
                for name in STORED {
                    assert_eq!(again.lines(name), first.lines(name), "{name}");
                }
                for name in LEFT_OUT {
                    assert!(!again.headers.contains_key(name), "{name}");
                }
                assert_eq!(again.lines("date").len(), 1);
                assert_ne!(again.lines("date"), ["Tue, 15 Nov 1994 08:12:31 GMT"]);
                assert_eq!(again.lines("idempotent-replay"), ["true"]);
                assert!(!format!("{again:?}").contains("secret"));
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_stored_response_of_the_handler_cannot_claim_to_be_a_replay() {
    with_each_adapter(async |adapter| {
        // Given handlers that pass on another service's response with its replay header: stored, streamed, too large.
        type Body = fn() -> axum::body::Body;
        let bodies: [(Body, bool); 3] = [
            (|| "x".into(), true),
            (|| stream(["x"]), true),
            (|| vec![b'x'; 2 << 20].into(), false),
        ];
        for (body, stored) in bodies {
            for value in ["true", "maybe"] {
                let handler = CountingHandler::responding(move |_| {
                    let headers = AppendHeaders([("idempotent-replay", value); 2]);
                    (headers, [("x-from", "elsewhere")], body()).into_response()
                });
                let engine = Idempotency::builder().build().unwrap();
                let app = adapter.app(&engine, &handler);

                // When the request is sent twice, then only the second response says that it is a replay.
                let first = send(&app, &TestRequest::payment("k")).await;
                assert_eq!(first.lines("idempotent-replay"), [""; 0]);
                assert_eq!(first.lines("x-from"), ["elsewhere"]);
                let again = send(&app, &TestRequest::payment("k")).await;
                if stored {
                    assert_eq!(again.lines("idempotent-replay"), ["true"], "one line");
                } else {
                    again.assert_problem(409, "response_not_stored");
                }
            }
        }
    });
}

#[test]
fn a_released_response_of_the_handler_cannot_claim_to_be_a_replay() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::responding(|_| {
            (
                StatusCode::TOO_MANY_REQUESTS,
                [("idempotent-replay", "true")],
            )
                .into_response()
        });
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        for _ in 0..2 {
            let answer = send(&app, &TestRequest::payment("k")).await;
            assert_eq!((answer.status.as_u16(), answer.replayed()), (429, false));
        }
        assert_eq!(handler.starts(), 2);
    });
}

#[test]
fn responses_with_empty_or_no_bodies_replay_unchanged() {
    in_real_time(async {
        for status in [200, 201, 204, 205, 303, 304, 404, 500] {
            let status = StatusCode::from_u16(status).unwrap();
            let handler = CountingHandler::responding(move |_| status.into_response());
            let engine = Idempotency::builder().build().unwrap();
            let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;
            let first = server.send(&TestRequest::payment("k")).await;
            let mut conn = Conn::open(server.address).await;
            conn.send(&TestRequest::payment("k").wire()).await;
            let again = conn.answer().await;
            assert_eq!((again.status, &again.body), (status, &first.body));
            assert_eq!(again.lines("content-length"), first.lines("content-length"));
            assert!(again.replayed());
            // And the connection can still be used.
            conn.send(&TestRequest::payment("k").wire()).await;
            assert_eq!(conn.answer().await.status, status);
        }
    });
}

#[derive(Clone)]
struct Account(&'static str);

impl Caller for Account {
    fn scope(&self) -> Scope {
        Scope::new(self.0)
    }
}

#[test]
fn within_a_scope_keys_are_unique_and_across_scopes_they_are_not() {
    with_each_adapter(async |adapter| {
        let builders = [
            Idempotency::builder().scope(scope::header("x-tenant")),
            Idempotency::builder().scope(scope::extension::<Account>()),
            Idempotency::builder().policy(Policy::new().shared_scope(scope::header("x-tenant"))),
            Idempotency::builder().scope(|parts| {
                let tenant = parts.headers.get("x-tenant")?;
                Some(Scope::new(tenant.as_bytes()))
            }),
            Idempotency::builder().policy(Policy::new().scope(|parts| {
                let tenant = parts.headers.get("x-tenant")?;
                Some(Scope::new(tenant.as_bytes()))
            })),
        ];
        for builder in builders {
            // Given a scope by header, extension or function, of the engine or of the route.
            let handler = CountingHandler::new();
            let app = adapter.app(&builder.build().unwrap(), &handler);
            let as_tenant = |tenant: &'static str| {
                let app = app.clone().layer(axum::Extension(Account(tenant)));
                let request = TestRequest::payment("k").header("x-tenant", tenant);
                async move { send(&app, &request).await }
            };

            // Then equal keys of different callers are different keys.
            as_tenant("one").await.assert_charge(1);
            as_tenant("two").await.assert_charge(2);
            as_tenant("one").await.assert_replay_of_charge(1);
            as_tenant("two").await.assert_replay_of_charge(2);
        }
    });
}

#[test]
fn within_a_scope_new_credentials_are_the_same_caller() {
    with_each_adapter(async |adapter| {
        // Given a scope, and a caller whose token was renewed before its retry.
        let handler = CountingHandler::new();
        let engine = Idempotency::builder();
        let engine = engine.scope(scope::header("x-tenant"));
        let app = adapter.app(&engine.build().unwrap(), &handler);
        let with = |token: &str| {
            let request = TestRequest::payment("k").header("x-tenant", "one");
            request.header("authorization", token)
        };
        send(&app, &with("Bearer old")).await.assert_charge(1);
        send(&app, &with("Bearer new"))
            .await
            .assert_replay_of_charge(1);

        // And where the scope finds no caller, the credentials count again, apart from any tenant.
        let without_scope = |token: &str| TestRequest::payment("k").header("authorization", token);
        send(&app, &without_scope("Bearer old"))
            .await
            .assert_charge(2);
        send(&app, &without_scope("Bearer new"))
            .await
            .assert_problem(409, "caller_mismatch");
        send(&app, &with("Bearer new").header("x-tenant", ""))
            .await
            .assert_charge(3);
    });
}
