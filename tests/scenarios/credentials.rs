//! Who calls where no scope says it: the credentials (DESIGN.md, section 6; invariant I8).

use std::time::Duration;

use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderName, StatusCode, request::Parts};
use idempotent_runtime::{
    Caller, Idempotency, MemoryStore, Policy, Profile, Scope, idempotent, scope,
    scope::Credentials, store::Store,
};

use crate::support::{
    Adapter, Conn, CountingHandler, FaultyStore, H2Conn, Log, PAY, Server, TestRequest,
    TestResponse, advance, crash, in_real_time, run_ready_tasks, send, send_in_task,
    with_each_adapter,
};

/// A payment with this line.
fn by(name: &str, value: &str) -> TestRequest {
    TestRequest::payment("k").header(name, value)
}

fn engine(credentials: Credentials) -> Idempotency {
    Idempotency::builder()
        .credentials(credentials)
        .build()
        .unwrap()
}

/// Asserts that this is the answer to another caller's key, and says nothing of what was executed.
#[track_caller]
fn assert_refused(answer: &TestResponse) {
    answer.assert_problem(409, "caller_mismatch");
    assert_eq!(answer.json()["action"], "fix_request");
    assert_eq!(answer.json()["retryable"], false);
    assert!(!answer.text().contains("charge"), "{answer:?}");
}

/// Executes for the first, and then asks for each of the others.
async fn ask(app: &Router, first: &TestRequest, others: &[TestRequest]) -> Vec<TestResponse> {
    send(app, first).await.assert_charge(1);
    let mut answers = Vec::new();
    for other in others {
        answers.push(send(app, other).await);
    }
    send(app, first).await.assert_replay_of_charge(1);
    answers
}

#[test]
fn another_callers_key_is_neither_replayed_nor_executed() {
    with_each_adapter(async |adapter| {
        for (name, alice, mallory) in [
            ("authorization", "Bearer alice", "Bearer mallory"),
            ("authorization", "Basic YWxpY2U6", "Basic bWFsbG9yeTo"),
            ("x-api-key", "alice", "mallory"),
            ("api-key", "alice", "mallory"),
            ("x-auth-token", "alice", "mallory"),
            ("cookie", "session=alice", "session=mallory"),
        ] {
            // Given no scope, and a caller with credentials; then other callers learn nothing and execute nothing.
            let handler = CountingHandler::new();
            let app = adapter.app(&engine(Credentials::new()), &handler);
            let others = [
                by(name, mallory),
                by(name, &alice.replace("alice", "Alice").replace("YWx", "Ywx")),
                TestRequest::payment("k"),
                by(name, alice).header("x-api-key", "more"),
                // Not even whether they ask for the same.
                by(name, mallory).body("{}"),
            ];
            for answer in ask(&app, &by(name, alice), &others).await {
                assert_refused(&answer);
            }
            assert_eq!(handler.starts(), 1, "{name}");

            // And the caller's own other request is an ordinary mismatch.
            let answer = send(&app, &by(name, alice).body("{}")).await;
            answer.assert_problem(409, "mismatch");
        }
    });
}

#[test]
fn a_caller_without_credentials_is_another_one_than_each_with_some() {
    with_each_adapter(async |adapter| {
        let app = adapter.app(&engine(Credentials::new()), &CountingHandler::new());
        let others = [
            by("authorization", "Bearer mallory"),
            by("cookie", "session=mallory"),
        ];
        for answer in ask(&app, &TestRequest::payment("k"), &others).await {
            assert_refused(&answer);
        }
        // A header without a value, and a cookie that is no session, are no credentials.
        for same in [by("authorization", ""), by("cookie", "_ga=1; csrftoken=2")] {
            send(&app, &same).await.assert_replay_of_charge(1);
        }
    });
}

#[test]
fn a_renewed_token_is_told_to_send_the_first_one() {
    with_each_adapter(async |adapter| {
        let app = adapter.app(&engine(Credentials::new()), &CountingHandler::new());
        let renewed = [by("authorization", "Bearer renewed")];
        let answers = ask(&app, &by("authorization", "Bearer first"), &renewed).await;
        // No field leads a program to a second payment.
        assert_refused(&answers[0]);
        assert!(answers[0].text().contains("credentials"));
    });
}

#[test]
fn the_scheme_of_authorization_has_no_letter_case() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let app = adapter.app(&engine(Credentials::new()), &handler);
        send(&app, &by("authorization", "Bearer tok"))
            .await
            .assert_charge(1);
        for same in ["bearer tok", "BEARER tok"] {
            send(&app, &by("authorization", same))
                .await
                .assert_replay_of_charge(1);
        }
        for other in ["Bearer TOK", "Bearer  tok", "Bearertok", "tok"] {
            assert_refused(&send(&app, &by("authorization", other)).await);
        }
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn cookies_that_change_between_two_requests_do_not_count() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let app = adapter.app(&engine(Credentials::new()), &handler);
        // Given a browser behind a load balancer and a bot protection, with analytics and a CSRF token.
        let jar = |n: u32| {
            format!(
                "AWSALB=a{n}; session=alice; AWSALBCORS=a{n}; __cf_bm=b{n}; _ga=c; _ga_X1=d{n}; csrftoken=e{n}; lang=de"
            )
        };
        send(&app, &by("cookie", &jar(1))).await.assert_charge(1);

        // Then its retry is the same caller's, with new values, in another order, or without them.
        let reordered = "lang=de; session=alice; _fbp=1";
        for same in [&*jar(2), reordered] {
            send(&app, &by("cookie", same))
                .await
                .assert_replay_of_charge(1);
        }
        let lines = by("cookie", "lang=de").header("cookie", "session=alice");
        send(&app, &lines).await.assert_replay_of_charge(1);
        // And another session is not.
        assert_refused(&send(&app, &by("cookie", &jar(2).replace("alice", "mallory"))).await);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn beside_another_credential_cookies_do_not_count() {
    with_each_adapter(async |adapter| {
        let app = adapter.app(&engine(Credentials::new()), &CountingHandler::new());
        let with = |cookie| by("authorization", "Bearer t").header("cookie", cookie);
        send(&app, &with("session=1")).await.assert_charge(1);
        send(&app, &with("session=2"))
            .await
            .assert_replay_of_charge(1);
    });
}

#[test]
fn a_credential_without_a_value_is_none() {
    with_each_adapter(async |adapter| {
        // Given a client that sends its header also where it has no token to put into it.
        for (header, value) in [
            ("authorization", "Bearer"),
            ("authorization", "bearer "),
            ("authorization", "Basic"),
            ("x-api-key", ""),
        ] {
            let app = adapter.app(&engine(Credentials::new()), &CountingHandler::new());
            let with = |cookie| by(header, value).header("cookie", cookie);
            send(&app, &with("session=alice")).await.assert_charge(1);
            send(&app, &with("session=alice"))
                .await
                .assert_replay_of_charge(1);
            assert_refused(&send(&app, &with("session=mallory")).await);
        }
    });
}

#[test]
fn headers_and_cookies_can_be_chosen() {
    with_each_adapter(async |adapter| {
        // Given an API key that all browsers share: the session says who calls.
        let credentials = Credentials::new()
            .headers([HeaderName::from_static("x-partner")])
            .only_cookies(["session"]);
        let app = adapter.app(&engine(credentials), &CountingHandler::new());
        let with = |cookie| by("x-api-key", "public").header("cookie", cookie);
        send(&app, &with("session=alice; theme=dark"))
            .await
            .assert_charge(1);
        send(&app, &with("session=alice; theme=light"))
            .await
            .assert_replay_of_charge(1);
        assert_refused(&send(&app, &with("session=mallory; theme=dark")).await);
        assert_refused(&send(&app, &by("x-partner", "p")).await);
    });
}

#[test]
fn over_real_connections_the_callers_are_the_same() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            let handler = CountingHandler::new();
            let server = Server::start(adapter.app(&engine(Credentials::new()), &handler)).await;
            let alice = by("cookie", "a=1; session=alice; AWSALB=1");
            server.send(&alice).await.assert_charge(1);

            // HTTP/2 clients send each cookie on a line of its own.
            let mut h2 = H2Conn::open(server.address).await;
            let crumbs = by("cookie", "AWSALB=2")
                .header("cookie", "session=alice")
                .header("cookie", "a=1");
            let answer = h2.send(&crumbs).await.answer().await;
            answer.assert_replay_of_charge(1);
            let mut h1 = Conn::open(server.address).await;
            h1.send(&by("cookie", "a=1; session=mallory").wire()).await;
            assert_refused(&h1.answer().await);
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn another_caller_learns_nothing_in_any_state_of_the_record() {
    with_each_adapter(async |adapter| {
        let mallory = by("authorization", "Bearer mallory");
        let alice = by("authorization", "Bearer alice");
        for policy in [Policy::new(), Policy::new().wait(false)] {
            // Given a key in flight: the mismatch comes before a conflict and before waiting.
            let handler = CountingHandler::new();
            let store = FaultyStore::new();
            let builder = Idempotency::builder().store(store.clone()).policy(policy);
            let app = adapter.app(&builder.build().unwrap(), &handler);
            handler.close_gate();
            let first = send_in_task(&app, &alice);
            handler.started(1).await;
            assert_refused(&send(&app, &mallory).await);

            // And in another process, which asks the store.
            let other = Idempotency::builder().store(store.clone()).build().unwrap();
            let elsewhere = adapter.app(&other, &handler);
            assert_refused(&send(&elsewhere, &mallory).await);

            handler.open_gate();
            first.await.unwrap().assert_charge(1);
            assert_refused(&send(&app, &mallory).await);
            assert_refused(&send(&elsewhere, &mallory).await);
            assert_eq!(handler.starts(), 1);
        }
        // Given a tombstone.
        let handler = CountingHandler::responding(|_| vec![b'x'; 2 << 20].into_response());
        let app = adapter.app(&engine(Credentials::new()), &handler);
        send(&app, &alice).await;
        assert_refused(&send(&app, &mallory).await);
        send(&app, &alice)
            .await
            .assert_problem(409, "response_not_stored");
        // Given a lapsed lease.
        let (handler, store) = (CountingHandler::new(), MemoryStore::new());
        handler.close_gate();
        let builder = Idempotency::builder();
        crash(adapter, builder, store.clone(), &alice, &handler).await;
        advance(Duration::from_secs(31)).await;
        let other = Idempotency::builder().store(store).build().unwrap();
        let app = adapter.app(&other, &CountingHandler::new());
        assert_refused(&send(&app, &mallory).await);
        send(&app, &alice)
            .await
            .assert_problem(409, "outcome_unknown");
    });
}

#[test]
fn a_waiter_whose_key_went_to_another_caller_gets_a_caller_mismatch() {
    with_each_adapter(async |adapter| {
        for same_process in [true, false] {
            // Given alice's execution, and a duplicate of hers that waits in another process.
            let handler = CountingHandler::with_first_status(429);
            let store = FaultyStore::without_wakes();
            let engine = || Idempotency::builder().store(store.clone()).build().unwrap();
            let (here, there) = (engine(), engine());
            let (app, other) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
            handler.close_gate();
            let first = send_in_task(&app, &by("authorization", "Bearer alice"));
            handler.started(1).await;
            let waiter = send_in_task(&other, &by("authorization", "Bearer alice"));
            run_ready_tasks().await;

            // When hers releases the key, and bob's takes it: in the waiter's process, which then tells it the outcome,
            // or in the other one.
            handler.let_through(1);
            assert_eq!(first.await.unwrap().status, 429);
            let of_bob = if same_process { &other } else { &app };
            let bob = send_in_task(of_bob, &by("authorization", "Bearer bob"));
            handler.started(2).await;
            if same_process {
                handler.open_gate();
                bob.await.unwrap().assert_charge(2);
                assert_refused(&waiter.await.unwrap());
            } else {
                advance(Duration::from_secs(1)).await;
                assert_refused(&waiter.await.unwrap());
                handler.open_gate();
                bob.await.unwrap().assert_charge(2);
            }
            assert_eq!(handler.starts(), 2);
        }
    });
}

#[test]
fn one_callers_share_of_the_room_follows_its_credentials() {
    with_each_adapter(async |adapter| {
        // Given room for four executions, one for each caller, and callers by cookie.
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().max_detached(4).build().unwrap();
        let app = adapter.app(&engine, &handler);
        let pay = |session: &str, key: &str| {
            TestRequest::payment(key).header("cookie", &format!("session={session}; _ga={key}"))
        };
        handler.close_gate();
        let client = send_in_task(&app, &pay("alice", "1"));
        handler.started(1).await;
        client.abort();
        run_ready_tasks().await;

        // Then alice has no room for another, and bob has.
        send(&app, &pay("alice", "2"))
            .await
            .assert_problem(503, "overloaded");
        handler.open_gate();
        send(&app, &pay("bob", "3")).await.assert_charge(2);
    });
}

#[test]
fn the_profiles_answer_another_caller_as_they_answer_a_mismatch() {
    with_each_adapter(async |adapter| {
        for (profile, status, key) in [
            (Profile::Default, 409, "k"),
            (Profile::Ietf, 422, "\"k\""),
            (Profile::Stripe, 400, "k"),
        ] {
            let engine = Idempotency::builder().profile(profile).build().unwrap();
            let app = adapter.app(&engine, &CountingHandler::new());
            let by = |token| TestRequest::payment(key).header("authorization", token);
            send(&app, &by("Bearer alice")).await.assert_charge(1);
            send(&app, &by("Bearer mallory"))
                .await
                .assert_problem(status, "caller_mismatch");
        }
    });
}

#[test]
fn credentials_are_neither_logged_nor_stored_nor_shown() {
    with_each_adapter(async |adapter| {
        let (log, _guard) = Log::collect();
        let store = FaultyStore::new();
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = adapter.app(&engine, &CountingHandler::new());
        for (name, value) in [
            ("authorization", "Bearer canary-1"),
            ("x-api-key", "canary-2"),
            ("api-key", "canary-3"),
            ("x-auth-token", "canary-4"),
            ("cookie", "session=canary-5; canary-6"),
        ] {
            let request = TestRequest::payment(name).header(name, value);
            assert_eq!(send(&app, &request).await.status, 201);
            let other = TestRequest::payment(name).header(name, "canary-7");
            assert_refused(&send(&app, &other).await);
        }
        let text = log.text();
        assert!(text.contains("caller_mismatch") && !text.contains("canary"));
        assert!(!store.written().contains("canary"));
        assert!(!format!("{engine:?} {:?}", Credentials::new()).contains("canary"));
    });
}

#[test]
fn one_caller_is_not_recognised_in_two_records() {
    with_each_adapter(async |adapter| {
        // What is stored of the credentials is another digest in each record.
        let store = FaultyStore::new();
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = adapter.app(&engine, &CountingHandler::new());
        for key in ["1", "2"] {
            let request = TestRequest::payment(key).header("authorization", "Bearer t");
            send(&app, &request).await;
        }
        let mut ends = Vec::new();
        for key in store.keys() {
            let record = store.get(&key).await.unwrap().unwrap();
            ends.push(record.fingerprint.as_bytes()[24..].to_vec());
        }
        assert_eq!(ends.len(), 2);
        assert_ne!(ends[0], ends[1]);
        assert!(ends.iter().all(|end| *end != [0; 8]));
    });
}

/// Two signatures of one request by one caller, and the scheme in both.
const SIGNATURES: [(&str, &str, &str); 9] = [
    (
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261130/eu-central-1/execute-api/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261130/eu-central-1/execute-api/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=0d10ae1d2a4f2b5c0ba4cbfbdf2a57b3a1b1f8e1c5ad1db3c4bd2cf6e25b3a90",
    ),
    (
        "Digest",
        r#"Digest username="a", realm="r", nonce="n", uri="/pay", nc=00000001, cnonce="x", response="1""#,
        r#"digest username="a", realm="r", nonce="n", uri="/pay", nc=00000002, cnonce="y", response="2""#,
    ),
    (
        "OAuth",
        r#"OAuth oauth_consumer_key="c", oauth_nonce="1", oauth_signature="a%3D""#,
        r#"OAuth oauth_consumer_key="c", oauth_nonce="2", oauth_signature="b%3D""#,
    ),
    (
        "Hawk",
        r#"Hawk id="a", ts="1", nonce="1", mac="x""#,
        r#"Hawk id="a", ts="2", nonce="2", mac="y""#,
    ),
    (
        "SharedKey",
        "SharedKey account:one",
        "SharedKey account:two",
    ),
    ("Negotiate", "Negotiate YIIone", "Negotiate YIItwo"),
    ("", "Bearer one", "Bearer two"),
    ("", "OAuth one", "OAuth two"),
    ("", "Digestive one", "Digestive two"),
];

#[test]
fn a_signature_that_differs_in_each_retry_is_named_where_no_scope_is_set() {
    with_each_adapter(async |adapter| {
        for (scheme, first, retry) in SIGNATURES {
            let (log, _guard) = Log::collect();
            let handler = CountingHandler::new();
            let app = adapter.app(&engine(Credentials::new()), &handler);
            send(&app, &by("authorization", first))
                .await
                .assert_charge(1);
            for _ in 0..2 {
                let refused = send(&app, &by("authorization", retry)).await;
                assert_refused(&refused);
                let detail = refused.json()["detail"].as_str().unwrap().to_owned();
                let named = detail.contains(&format!("the scheme {scheme} makes"));
                assert_eq!(named, !scheme.is_empty(), "{retry}: {detail}");
                assert!(!detail.contains("AKID") && !detail.contains("account:"));
            }
            let text = log.text();
            let said = text
                .matches("makes new credentials for each request")
                .count();
            assert_eq!(said, usize::from(!scheme.is_empty()), "{text}");
            assert_eq!(handler.starts(), 1);
        }
    });
}

/// Who signed, by a service that has checked it.
struct Signer(String);

impl Caller for Signer {
    fn scope(&self) -> Scope {
        Scope::new(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for Signer {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let authorization = parts.headers.get("authorization");
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let credential = authorization.and_then(|value| value.split_once("Credential="));
        let id = credential.and_then(|(_, rest)| rest.split('/').next());
        id.map(|id| Self(id.to_owned()))
            .ok_or(StatusCode::UNAUTHORIZED)
    }
}

#[idempotent(caller = Signer)]
async fn pay_by_signature(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

#[test]
fn a_caller_makes_retries_with_new_signatures_the_same_callers() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let app = Router::new()
            .route(PAY, post(pay_by_signature))
            .with_state(handler.clone());
        let server = Server::start(app).await;
        let (_, first, retry) = SIGNATURES[0];
        server
            .send(&by("authorization", first))
            .await
            .assert_charge(1);
        server
            .send(&by("authorization", retry))
            .await
            .assert_replay_of_charge(1);
        let other = retry.replace("AKIDEXAMPLE", "AKIDOTHER");
        server
            .send(&by("authorization", &other))
            .await
            .assert_charge(2);
    });
}

#[test]
fn a_missing_scope_is_said_once() {
    with_each_adapter(async |adapter| {
        let said = "no scope is set";
        let (log, guard) = Log::collect();
        let app = adapter.app(&engine(Credentials::new()), &CountingHandler::new());
        // Without credentials there is nothing to tell.
        send(&app, &TestRequest::payment("1")).await;
        assert_eq!(log.text().matches(said).count(), 0);
        for key in ["2", "3", "4"] {
            let request = TestRequest::payment(key).header("authorization", "Bearer t");
            send(&app, &request).await;
        }
        assert_eq!(log.text().matches(said).count(), 1);
        drop(guard);

        let (log, _guard) = Log::collect();
        let scoped = Idempotency::builder().scope(scope::header("x-tenant"));
        let app = adapter.app(&scoped.build().unwrap(), &CountingHandler::new());
        let request = TestRequest::payment("1").header("x-tenant", "a");
        send(&app, &request.header("authorization", "Bearer t")).await;
        let text = log.text();
        assert!(!text.contains(said) && !text.contains("found no caller"));
    });
}
