//! What depends on the connection, over HTTP/1.1 and over h2 (DESIGN.md, sections 3 and 4; invariants I4, I10, I15).
//! Clients that leave while an acquire is under way are in `through_a_proxy`.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderValue, Method, header::CONTENT_LENGTH};
use idempotent_runtime::{Idempotency, Policy, Scope};
use tokio::sync::Semaphore;

use crate::{
    panics::{Fragile, Grenade, Panics, before_the_future, extracting},
    support::{
        Adapter, Client, Conn, CountingHandler, DISCONNECTS, Fault, FaultyStore, Operation,
        PROTOCOLS, Protocol, Seen, Server, TestRequest, detached, in_real_time,
        send_and_disconnect, stream, wait_until,
    },
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

/// Runs a case for each adapter over each protocol.
fn over_each(case: impl AsyncFn(Adapter, Protocol)) {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            for protocol in PROTOCOLS {
                case(adapter, protocol).await;
            }
        }
    });
}

/// A response of `answer`, in one of the ways in which a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The body knows its size.
    Exact,
    /// The head says it.
    Claimed,
    /// With the end of the stream.
    Stream,
}

const ENDINGS: [Ending; 3] = [Ending::Exact, Ending::Claimed, Ending::Stream];

impl Ending {
    fn response(self) -> Response {
        let mut response: Response = match self {
            Self::Exact => "answer".into_response(),
            Self::Claimed | Self::Stream => stream(["ans", "wer"]).into_response(),
        };
        if self == Self::Claimed {
            response.headers_mut().insert(CONTENT_LENGTH, 6.into());
        }
        response
    }
}

/// An engine that gives up on its store after a tenth of a second.
fn engine(store: &FaultyStore) -> Idempotency {
    Idempotency::builder()
        .store(store.clone())
        .store_timeout(Duration::from_millis(100))
        .build()
        .unwrap()
}

#[test]
fn nobody_has_the_end_of_a_response_before_it_is_stored() {
    over_each(async |adapter, protocol| {
        for ending in ENDINGS {
            // Given a completion that is on its way.
            let (store, completion) = (FaultyStore::new(), Arc::new(Semaphore::new(0)));
            let held = Fault::HoldRequest(Arc::clone(&completion));
            store.fail_next(Operation::Complete, held);
            let engine = Idempotency::builder().store(store.clone());
            let engine = engine.store_timeout(Duration::from_secs(60)).build();
            let handler = CountingHandler::responding(move |_| ending.response());
            let server = Server::start(adapter.app(&engine.unwrap(), &handler)).await;
            let mut client = Client::open(protocol, &server).await;
            let (request, seen) = (payment(), Seen::default());
            let first = async { client.watch(&request, &seen).await };
            let completing = async {
                let before_the_last = (ending == Ending::Stream).then(|| "ans".to_owned());
                wait_until(|| {
                    store.calls(Operation::Complete) == 1 && seen.so_far() == before_the_last
                })
                .await;
                // What the server had to send would have arrived by the time of a later answer.
                for protocol in PROTOCOLS {
                    let mut other = Client::open(protocol, &server).await;
                    other.send(&TestRequest::post("/elsewhere")).await;
                }
                // Then the client has nothing, or all but the last frame.
                assert_eq!(seen.so_far(), before_the_last, "{protocol:?} {ending:?}");
                completion.add_permits(1);
            };

            // And all of it when it is acknowledged.
            let (first, ()) = tokio::join!(first, completing);
            assert_eq!(first.expect("the whole response").text(), "answer");
            let replay = client.send(&request).await;
            assert!(replay.replayed());
            assert_eq!(replay.text(), "answer");
        }
    });
}

#[test]
fn nobody_has_the_end_of_a_response_that_is_not_stored() {
    over_each(async |adapter, protocol| {
        for ending in ENDINGS {
            let store = FaultyStore::new();
            store.fail_always(Operation::Complete, Fault::Unreachable);
            let handler = CountingHandler::responding(move |_| ending.response());
            let server = Server::start(adapter.app(&engine(&store), &handler)).await;
            let mut client = Client::open(protocol, &server).await;
            match client.try_send(&payment()).await {
                // The client sees a broken stream.
                Err(_) => assert_eq!(ending, Ending::Stream),
                Ok(answer) => {
                    assert_ne!(ending, Ending::Stream, "{protocol:?}");
                    answer.assert_problem(409, "outcome_unknown");
                }
            }

            // When the store is back, then all get the outcome, and it was executed once.
            store.heal();
            for protocol in PROTOCOLS {
                let mut client = Client::open(protocol, &server).await;
                let mut replay = client.send(&payment()).await;
                let since = std::time::Instant::now();
                while !replay.replayed() {
                    replay.assert_problem(409, "outcome_unknown");
                    assert!(since.elapsed() < Duration::from_secs(30), "never stored");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    replay = client.send(&payment()).await;
                }
                assert_eq!(replay.text(), "answer");
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}

/// A response of `answer` with this `Content-Length`.
fn contradicting(ending: Ending, length: &'static [&'static str]) -> Response {
    let mut response = ending.response();
    response.headers_mut().remove(CONTENT_LENGTH);
    for line in length {
        let line = HeaderValue::from_static(line);
        response.headers_mut().append(CONTENT_LENGTH, line);
    }
    response
}

#[test]
fn a_length_that_contradicts_its_body_is_shown_to_nobody() {
    over_each(async |adapter, protocol| {
        let lengths: [&[&str]; 5] = [&["3"], &["9"], &["no number"], &["6", "7"], &["0"]];
        for length in lengths {
            for ending in [Ending::Exact, Ending::Stream] {
                let handler = CountingHandler::responding(move |_| contradicting(ending, length));
                let engine = Idempotency::builder().build().unwrap();
                let server = Server::start(adapter.app(&engine, &handler)).await;
                let mut client = Client::open(protocol, &server).await;
                let first = client.try_send(&payment()).await;
                let first = first.unwrap_or_else(|error| panic!("{ending:?} {length:?}: {error}"));
                let again = client.send(&payment()).await;

                // Then both clients hear the same.
                assert_eq!(again.status, first.status, "{ending:?} {length:?}");
                assert_eq!(again.body, first.body, "{ending:?} {length:?}");
                match ending {
                    // The bytes are there, and the header is wrong.
                    Ending::Exact => {
                        assert_eq!(first.text(), "answer");
                        assert!(again.replayed());
                    }
                    // Nobody knows which bytes were meant.
                    _ => first.assert_problem(409, "response_not_stored"),
                }
                assert_eq!(handler.starts(), 1);
            }
        }
    });
}

#[test]
fn the_length_of_a_response_to_head_is_that_of_another_body() {
    over_each(async |_, protocol| {
        let handler = CountingHandler::responding(|_| {
            let mut response: Response = Body::empty().into_response();
            response.headers_mut().insert(CONTENT_LENGTH, 1234.into());
            response
        });
        let engine = Idempotency::builder().build().unwrap();
        let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;
        let request = TestRequest::new(Method::HEAD, "/pay").key("k");
        let (status, headers) = match protocol {
            // The client would wait for the body.
            Protocol::Http1 => {
                let mut conn = Conn::open(server.address).await;
                conn.send(&request.wire()).await;
                conn.try_head().await.expect("a head")
            }
            Protocol::H2 => {
                let mut client = Client::open(protocol, &server).await;
                let answer = client.send(&request).await;
                (answer.status, answer.headers)
            }
        };
        assert_eq!(status, 200);
        assert_eq!(headers["content-length"], "1234", "{protocol:?}");
    });
}

/// Case D3: a handler that never ends, whose client has gone, in the only place.
#[test]
fn an_execution_that_never_ends_blocks_no_replay_and_after_its_lifetime_no_execution() {
    in_real_time(async {
        for disconnect in DISCONNECTS {
            let policy = Policy::new().wait(false).lease(Duration::from_millis(300));
            let engine = Idempotency::builder()
                .max_detached(1)
                .policy(policy.max_lifetime(Duration::from_secs(2)))
                .build()
                .unwrap();
            let handler = CountingHandler::new();
            let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;
            let (done, new) = (TestRequest::payment("done"), TestRequest::payment("new"));
            server.send(&done).await.assert_charge(1);
            handler.close_gate();
            let endless = payment();
            send_and_disconnect(&server, &endless, disconnect, handler.started(2)).await;
            wait_until(|| detached(&engine) == 1).await;
            for protocol in PROTOCOLS {
                let mut client = Client::open(protocol, &server).await;
                client.send(&done).await.assert_replay_of_charge(1);
                client.send(&new).await.assert_problem(503, "overloaded");
                client.send(&endless).await.assert_problem(409, "conflict");
            }
            // When it is overdue, then there is room.
            wait_until(|| detached(&engine) == 0).await;
            handler.let_through(3);
            server.send(&new).await.assert_charge(3);
            assert_eq!(handler.starts(), 3, "{disconnect:?}");
        }
    });
}

/// Sends a request twice over one connection, beside another request: each is answered, and so is what comes after it.
async fn twice(protocol: Protocol, app: Router) -> [crate::support::TestResponse; 2] {
    let server = Server::start(app).await;
    let mut client = Client::open(protocol, &server).await;
    let first = client.send(&payment()).await;
    let second = client.send(&payment()).await;
    let other = client.send(&TestRequest::post("/elsewhere")).await;
    assert_eq!(other.status, 404, "the connection goes on");
    [first, second]
}

/// Cases D5 and D6.
#[test]
fn a_panic_before_the_handler_is_answered_and_releases_the_key() {
    over_each(async |adapter, protocol| {
        // An extractor.
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/pay", post(extracting))
            .layer(Extension(Panics::default()))
            .layer(Extension(engine));
        let [first, second] = twice(protocol, app).await;
        first.assert_problem(500, "handler_panicked");
        second.assert_charge(1);

        // A scope function.
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let scope = move |_: &http::request::Parts| {
            let calls = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            assert!(calls > 0, "the scope");
            Some(Scope::new("tenant"))
        };
        let engine = Idempotency::builder().scope(scope).build().unwrap();
        let handler = CountingHandler::new();
        let [first, second] = twice(protocol, adapter.app(&engine, &handler)).await;
        first.assert_problem(500, "handler_panicked");
        second.assert_charge(1);
    });
}

/// Case D6 and the handler's own panic.
#[test]
fn a_panic_of_a_handler_or_its_response_is_answered_and_executes_once() {
    over_each(async |adapter, protocol| {
        let app_of = |handler: &CountingHandler| {
            let engine = Idempotency::builder().build().unwrap();
            adapter.app(&engine, handler)
        };
        for place in ["poll_frame", "size_hint", "drop"] {
            let handler =
                CountingHandler::responding(move |_| Body::new(Fragile(place)).into_response());
            let [first, second] = twice(protocol, app_of(&handler)).await;
            assert_eq!(first.status, second.status, "{place}");
            assert_eq!(first.body, second.body, "{place}");
            assert_eq!(handler.starts(), 1, "{place}");
        }
        let handlers = [
            CountingHandler::running(|_, _| {
                let grenade = Grenade;
                Box::pin(async move {
                    drop(grenade);
                    "unreachable".into_response()
                })
            }),
            CountingHandler::responding(|_| panic!("the handler")),
        ];
        for handler in handlers {
            for answer in twice(protocol, app_of(&handler)).await {
                answer.assert_problem(500, "handler_panicked");
            }
            assert_eq!(handler.starts(), 1);
        }
        let starts = Panics::default();
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/pay", post(before_the_future))
            .layer(Extension(starts.clone()))
            .layer(Extension(engine));
        for answer in twice(protocol, app).await {
            answer.assert_problem(500, "handler_panicked");
        }
        assert_eq!(starts.count(), 1);
    });
}
