//! Responses that are large, of unknown size, endless or broken (DESIGN.md, section 4).

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt;
use idempotent_runtime::{Idempotency, MemoryStore, OnCrash, Policy};
use tower::ServiceExt;

use crate::support::{
    Adapter, Conn, CountingHandler, Fault, FaultyStore, Frames, H2Conn, Operation, Server,
    TestRequest, advance, detached, endless, frames, in_real_time, run_ready_tasks, send,
    send_in_task, stream, wait_until, with_each_adapter, with_paused_clock,
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn engine(policy: Policy) -> Idempotency {
    Idempotency::builder().policy(policy).build().unwrap()
}

/// A handler whose responses are streams that the scenario feeds.
fn streaming_handler() -> (CountingHandler, std::sync::mpsc::Receiver<Frames>) {
    let (sender, feeds) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let handler = CountingHandler::responding(move |_| {
        let (feed, body) = frames();
        sender.lock().unwrap().send(feed).unwrap();
        (StatusCode::CREATED, [("x-stream", "1")], body).into_response()
    });
    (handler, feeds)
}

#[expect(clippy::unnecessary_wraps, reason = "what a body yields")]
fn data(text: &'static str) -> std::io::Result<Frame<Bytes>> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Sends a request and reads the head of its response only.
async fn open(app: &axum::Router, request: &TestRequest) -> Response {
    app.clone().oneshot(request.request()).await.unwrap()
}

#[test]
fn a_large_response_is_sent_and_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        // Given a response of 2 MiB, whose size is known.
        let large: fn(usize) -> Response = |_| vec![b'x'; 2 << 20].into_response();
        let handler = CountingHandler::responding(large);
        let app = adapter.app(&engine(Policy::new()), &handler);
        let first = send(&app, &payment()).await;
        assert_eq!((first.status.as_u16(), first.body.len()), (200, 2 << 20));

        // When the request is retried, at once and after the lease.
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        advance(Duration::from_secs(60)).await;
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        send(&app, &payment().body("{}"))
            .await
            .assert_problem(409, "mismatch");

        // Then nothing executes again.
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_response_up_to_the_limit_is_stored_and_one_byte_more_is_not() {
    with_each_adapter(async |adapter| {
        let sized: fn(usize) -> Body = |size| Body::from(vec![b'x'; size]);
        let streamed: fn(usize) -> Body = |size| {
            let (feed, body) = frames();
            for piece in vec![b'x'; size].chunks(100) {
                feed.send(Ok(Frame::data(Bytes::copy_from_slice(piece))))
                    .unwrap();
            }
            body
        };
        for make in [sized, streamed] {
            for (size, kept) in [
                (0, true),
                (999, true),
                (1000, true),
                (1001, false),
                (5000, false),
            ] {
                let handler = CountingHandler::responding(move |_| make(size).into_response());
                let policy = Policy::new().max_response(1000).on_crash(OnCrash::Retry);
                let app = adapter.app(&engine(policy), &handler);
                let first = send(&app, &payment()).await;
                assert_eq!((first.status.as_u16(), first.body.len()), (200, size));
                let again = send(&app, &payment()).await;
                if kept {
                    assert_eq!((again.status, again.body), (first.status, first.body));
                } else {
                    again.assert_problem(409, "response_not_stored");
                }
                assert_eq!(handler.starts(), 1, "{size}");
            }
        }
    });
}

#[test]
fn a_response_with_too_many_or_too_large_headers_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        for (count, size, kept) in [(60, 10, true), (70, 10, false), (3, 6000, false)] {
            let handler = CountingHandler::responding(move |_| {
                let mut response = StatusCode::CREATED.into_response();
                for _ in 0..count {
                    let value = http::HeaderValue::from_str(&"v".repeat(size)).unwrap();
                    response.headers_mut().append("x-many", value);
                }
                response
            });
            let app = adapter.app(&engine(Policy::new()), &handler);
            let first = send(&app, &payment()).await;
            assert_eq!(
                (first.status.as_u16(), first.lines("x-many").len()),
                (201, count)
            );
            let again = send(&app, &payment()).await;
            if kept {
                assert_eq!(again.lines("x-many"), first.lines("x-many"));
            } else {
                again.assert_problem(409, "response_not_stored");
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_stream_is_passed_through_while_it_is_recorded_and_then_replayed() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            let (handler, feeds) = streaming_handler();
            let server = Server::start(adapter.app(&engine(Policy::new()), &handler)).await;

            // Given a client that reads a stream over HTTP/1.
            let mut conn = Conn::open(server.address).await;
            conn.send(&payment().wire()).await;
            let (status, headers) = conn.try_head().await.unwrap();
            let feed = feeds.recv().unwrap();
            assert_eq!(
                (status.as_u16(), headers["x-stream"].to_str().unwrap()),
                (201, "1")
            );

            // When frames are sent one by one, then each arrives before the next is sent.
            for piece in ["one ", "two ", "three"] {
                feed.send(data(piece)).unwrap();
                assert_eq!(conn.try_chunk().await.unwrap(), piece);
            }
            drop(feed);
            assert!(
                conn.try_chunk().await.unwrap().is_empty(),
                "the stream ends normally"
            );

            // And the replay is complete, with a length.
            for again in [
                server.send(&payment()).await,
                H2Conn::open(server.address)
                    .await
                    .send(&payment())
                    .await
                    .answer()
                    .await,
            ] {
                assert_eq!(
                    (again.status.as_u16(), again.text()),
                    (201, "one two three")
                );
                assert_eq!(again.lines("content-length"), ["13"]);
                assert!(again.replayed());
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_client_sees_the_end_of_a_stream_only_once_it_is_stored() {
    with_each_adapter(async |adapter| {
        // Given a stream whose completion does not reach the store.
        let store = FaultyStore::new();
        let handler = CountingHandler::responding(|_| stream(["one", "two"]).into_response());
        let policy = Policy::new().wait_timeout(Duration::from_secs(120));
        let engine = Idempotency::builder().store(store.clone()).policy(policy);
        let engine = engine.build().unwrap();
        let app = adapter.app(&engine, &handler);
        store.fail_always(Operation::Complete, Fault::Unreachable);
        let mut body = open(&app, &payment()).await.into_body();
        for piece in ["one", "two"] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }

        // Then the client sees a broken stream, not a complete one that no retry will get.
        assert!(body.frame().await.unwrap().is_err());

        // And the key stays claimed while the store is unreachable, lease after lease.
        advance(Duration::from_secs(120)).await;
        let waiter = send_in_task(&app, &payment());
        run_ready_tasks().await;
        assert!(!waiter.is_finished());

        // And once the store is back, waiters and retries get the complete response.
        store.heal();
        advance(Duration::from_secs(60)).await;
        let answer = waiter.await.unwrap();
        assert_eq!(answer.text(), "onetwo");
        assert!(answer.replayed());
        assert_eq!(send(&app, &payment()).await.text(), "onetwo");
        assert_eq!((handler.starts(), detached(&engine)), (1, 0));
    });
}

#[test]
fn a_stream_beyond_the_limit_leaves_a_tombstone_once_the_store_is_back() {
    with_each_adapter(async |adapter| {
        // Given a stream beyond the limit, while completions do not reach the store.
        let store = FaultyStore::new();
        let handler = CountingHandler::responding(|_| stream(["12345", "67890"]).into_response());
        let policy = Policy::new().max_response(8).wait(false);
        let engine = Idempotency::builder().store(store.clone()).policy(policy);
        let app = adapter.app(&engine.build().unwrap(), &handler);
        store.fail_always(Operation::Complete, Fault::Unreachable);
        let first = open(&app, &payment()).await.into_body();
        assert!(first.collect().await.is_err());
        store.heal();
        advance(Duration::from_secs(60)).await;
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn duplicates_of_a_stream_wait_for_its_end() {
    with_each_adapter(async |adapter| {
        let (handler, feeds) = streaming_handler();
        let app = adapter.app(&engine(Policy::new()), &handler);
        let mut body = open(&app, &payment()).await.into_body();
        let feed = feeds.recv().unwrap();
        let waiter = send_in_task(&app, &payment());
        feed.send(data("one")).unwrap();
        body.frame().await.unwrap().unwrap();
        run_ready_tasks().await;
        assert!(!waiter.is_finished());
        drop(feed);
        assert!(body.frame().await.is_none());
        let answer = waiter.await.unwrap();
        assert_eq!(answer.text(), "one");
        assert!(answer.replayed());
    });
}

#[test]
fn a_client_that_disconnects_during_a_stream_gets_all_of_it_by_a_retry() {
    in_real_time(async {
        for round in 0..30 {
            // Given clients that disconnect, one way or another, after the first piece of a stream.
            let (handler, feeds) = streaming_handler();
            let engine = engine(Policy::new());
            let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;
            let feed;
            if round % 3 == 2 {
                let mut conn = H2Conn::open(server.address).await;
                let stream = conn.send(&payment()).await;
                handler.started(1).await;
                feed = feeds.recv().unwrap();
                feed.send(data("one")).unwrap();
                stream.reset();
                wait_until(|| detached(&engine) == 1).await;
            } else {
                let mut conn = Conn::open(server.address).await;
                conn.send(&payment().wire()).await;
                conn.try_head().await.unwrap();
                feed = feeds.recv().unwrap();
                feed.send(data("one")).unwrap();
                conn.try_chunk().await.unwrap();
                if round % 3 == 0 {
                    conn.close();
                } else {
                    conn.reset();
                }
                wait_until(|| detached(&engine) == 1).await;
            }

            // When the stream goes on and ends without them.
            feed.send(data(" two")).unwrap();
            drop(feed);
            wait_until(|| detached(&engine) == 0).await;

            // Then the retry gets all of it.
            let again = server.send(&payment()).await;
            assert_eq!((again.status.as_u16(), again.text()), (201, "one two"));
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_client_that_never_reads_the_body_does_not_stop_the_stream() {
    with_each_adapter(async |adapter| {
        let handler =
            CountingHandler::responding(|_| stream(["one", "two", "three"]).into_response());
        let engine = engine(Policy::new());
        let app = adapter.app(&engine, &handler);
        drop(open(&app, &payment()).await);
        run_ready_tasks().await;
        assert_eq!(detached(&engine), 0);
        assert_eq!(send(&app, &payment()).await.text(), "onetwothree");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_stream_beyond_the_limit_is_passed_through_and_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        let (handler, feeds) = streaming_handler();
        let policy = Policy::new().max_response(8).wait(false);
        let app = adapter.app(&engine(policy), &handler);
        let mut body = open(&app, &payment()).await.into_body();
        let feed = feeds.recv().unwrap();
        for piece in ["1234", "5678", "90"] {
            feed.send(data(piece)).unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }

        // Then the record is a tombstone from the first excess byte on, although the stream goes on.
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        for _ in 0..100 {
            feed.send(data("more")).unwrap();
            body.frame().await.unwrap().unwrap();
        }
        drop(feed);
        assert!(body.frame().await.is_none());
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_stream_that_never_ends_becomes_a_tombstone_when_its_lifetime_is_over() {
    with_each_adapter(async |adapter| {
        for client_stays in [true, false] {
            // Given a stream that sends a frame every minute and never ends.
            let (handler, feeds) = streaming_handler();
            let policy = Policy::new().wait(false);
            let engine = engine(policy);
            let app = adapter.app(&engine, &handler);
            let mut body = open(&app, &payment()).await.into_body();
            let feed = feeds.recv().unwrap();
            let reader = tokio::spawn(async move {
                let mut frames = 0;
                while client_stays && body.frame().await.is_some() {
                    frames += 1;
                }
                frames
            });
            for _ in 0..14 {
                let _may_be_closed = feed.send(data("tick"));
                advance(Duration::from_secs(60)).await;
                send(&app, &payment()).await.assert_problem(409, "conflict");
            }

            // When its lifetime of fifteen minutes is over.
            advance(Duration::from_secs(70)).await;

            // Then the record is a tombstone, and a client that is still connected goes on reading.
            send(&app, &payment())
                .await
                .assert_problem(409, "response_not_stored");
            assert_eq!(detached(&engine), 0);
            assert_eq!(feed.send(data("tick")).is_ok(), client_stays);
            run_ready_tasks().await;
            assert_eq!(reader.is_finished(), !client_stays);
            drop(feed);
            let frames = reader.await.unwrap();
            assert_eq!(frames, if client_stays { 15 } else { 0 });
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn an_endless_stream_takes_no_more_memory_than_the_limit() {
    with_each_adapter(async |adapter| {
        static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];
        // Given streams without end and without a pause, one read and one whose client disconnected.
        let store = MemoryStore::new();
        let handler = CountingHandler::responding(|_| endless(&PIECE).into_response());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = adapter.app(&engine, &handler);
        let mut body = open(&app, &payment()).await.into_body();
        drop(open(&app, &TestRequest::payment("detached")).await);
        let mut read = 0;
        while read < 64 << 20 {
            let frame = body.frame().await.unwrap().unwrap();
            read += frame.into_data().unwrap().len();
        }

        // Then both are tombstones, nothing of their bodies is stored, and the detached execution has ended.
        run_ready_tasks().await;
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        send(&app, &TestRequest::payment("detached"))
            .await
            .assert_problem(409, "response_not_stored");
        assert_eq!((store.usage().bytes, detached(&engine)), (0, 0));
    });
}

#[test]
fn a_stream_that_fails_fails_for_the_client_and_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        let (handler, feeds) = streaming_handler();
        let app = adapter.app(&engine(Policy::new()), &handler);
        let mut body = open(&app, &payment()).await.into_body();
        let feed = feeds.recv().unwrap();
        feed.send(data("one")).unwrap();
        feed.send(Err(std::io::ErrorKind::Other.into())).unwrap();
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.unwrap().is_err());
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        assert_eq!(handler.starts(), 1);
    });
}

/// A body that panics when it is polled.
struct Panics(Option<u64>);

impl http_body::Body for Panics {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        panic!("a panic of the scenario")
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0
            .map_or_else(http_body::SizeHint::new, http_body::SizeHint::with_exact)
    }
}

#[test]
fn a_body_that_panics_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        for size in [None, Some(5)] {
            let handler =
                CountingHandler::responding(move |_| Body::new(Panics(size)).into_response());
            let app = adapter.app(&engine(Policy::new().wait(false)), &handler);
            // The first request fails in one way or another.
            let first = open(&app, &payment()).await;
            let first = tokio::spawn(first.into_body().collect()).await;
            if size.is_none() {
                assert!(first.is_err() || first.unwrap().is_err());
            }
            run_ready_tasks().await;
            send(&app, &payment())
                .await
                .assert_problem(409, "response_not_stored");
            assert_eq!(handler.starts(), 1);
        }
    });
}

/// A body that panics instead of ending.
struct PanicsAtItsEnd(Body);

impl http_body::Body for PanicsAtItsEnd {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = std::task::ready!(std::pin::Pin::new(&mut self.0).poll_frame(context));
        assert!(frame.is_some(), "a panic of the scenario");
        std::task::Poll::Ready(frame)
    }
}

#[test]
fn a_stream_that_panics_never_seems_to_end_normally() {
    with_each_adapter(async |adapter| {
        // Given streams that panic within the limit, at it, and long after the recording was dropped.
        for pieces in [1, 2, 3, 50] {
            let handler = CountingHandler::responding(move |_| {
                let (feed, body) = frames();
                for _ in 0..pieces {
                    feed.send(data("1234")).unwrap();
                }
                Body::new(PanicsAtItsEnd(body)).into_response()
            });
            let policy = Policy::new().max_response(8);
            let app = adapter.app(&engine(policy), &handler);
            let mut body = open(&app, &payment()).await.into_body();
            for _ in 0..pieces {
                let frame = body.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), "1234");
            }

            // Then all frames arrive, and then an error.
            let end = body.frame().await;
            assert!(end.expect("the stream ended normally").is_err(), "{pieces}");
            send(&app, &payment())
                .await
                .assert_problem(409, "response_not_stored");
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn trailers_reach_the_client_and_a_response_with_trailers_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::responding(|_| {
            let (feed, body) = frames();
            feed.send(data("one")).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", http::HeaderValue::from_static("1"));
            feed.send(Ok(Frame::trailers(trailers))).unwrap();
            body.into_response()
        });
        let app = adapter.app(&engine(Policy::new()), &handler);
        let body = open(&app, &payment()).await.into_body();
        let whole = body.collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["x-sum"], "1");
        assert_eq!(whole.to_bytes(), "one");
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
    });
}

#[test]
fn a_body_of_known_size_with_trailers_reaches_its_first_client() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::responding(|_| {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", http::HeaderValue::from_static("1"));
            let body = http_body_util::Full::new(Bytes::from_static(b"one"));
            let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
            (StatusCode::CREATED, Body::new(body)).into_response()
        });
        let app = adapter.app(&engine(Policy::new()), &handler);
        let first = open(&app, &payment()).await;
        assert_eq!(first.status(), 201, "the handler's response");
        let whole = first.into_body().collect().await.unwrap();
        assert_eq!(whole.to_bytes(), "one");
        send(&app, &payment())
            .await
            .assert_problem(409, "response_not_stored");
        assert_eq!(handler.starts(), 1);
    });
}

/// A handler whose streams have no end and no pause: far more than sockets buffer.
fn large_streams() -> CountingHandler {
    static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];
    CountingHandler::responding(|_| (StatusCode::CREATED, endless(&PIECE)).into_response())
}

#[test]
fn a_slow_reader_does_not_make_a_stream_lose_its_lease() {
    in_real_time(async {
        // Given a stream that its client does not read.
        let (handler, store) = (large_streams(), FaultyStore::new());
        let policy = Policy::new()
            .lease(Duration::from_secs(3))
            .on_crash(OnCrash::Retry)
            .wait(false)
            .max_response(1 << 30);
        let engine = Idempotency::builder().store(store.clone()).policy(policy);
        let server =
            Server::start(Adapter::Attribute.app(&engine.build().unwrap(), &handler)).await;
        let mut conn = Conn::open(server.address).await;
        conn.send(&payment().wire()).await;
        conn.try_head().await.unwrap();

        // When it is renewed four times, which takes longer than a lease, then no retry executes again meanwhile.
        while store.calls(Operation::Renew) < 4 {
            let answer = server.send(&payment()).await;
            answer.assert_problem(409, "conflict");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_reader_that_stops_does_not_keep_a_stream_in_flight_beyond_its_lifetime() {
    with_each_adapter(async |adapter| {
        // Given a stream that its client stops reading, but does not close.
        let handler = large_streams();
        let policy = Policy::new()
            .max_lifetime(Duration::from_secs(120))
            .max_response(1 << 30)
            .wait_timeout(Duration::from_secs(180));
        let app = adapter.app(&engine(policy), &handler);
        let mut body = open(&app, &payment()).await.into_body();
        body.frame().await.unwrap().unwrap();
        let waiter = send_in_task(&app, &payment());
        advance(Duration::from_secs(110)).await;
        assert!(!waiter.is_finished());

        // When its lifetime is over, then it leaves a tombstone.
        advance(Duration::from_secs(11)).await;
        waiter
            .await
            .unwrap()
            .assert_problem(409, "response_not_stored");
        assert_eq!(handler.starts(), 1);
        drop(body);
    });
}

#[test]
fn a_fenced_stream_fails_rather_than_showing_its_own_outcome() {
    with_paused_clock(async {
        // Given a stream whose lease lapses, and an execution that takes over.
        let (handler, feeds) = streaming_handler();
        let records = MemoryStore::new();
        let store = FaultyStore::over(records.clone());
        store.fail_always(Operation::Renew, Fault::Hang);
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let engine = Idempotency::builder().store(store).policy(policy.clone());
        let here = Adapter::Attribute.app(&engine.build().unwrap(), &handler);
        let engine = Idempotency::builder().store(records).policy(policy);
        let there = Adapter::Attribute.app(&engine.build().unwrap(), &handler);
        let mut body = open(&here, &payment()).await.into_body();
        let old = feeds.recv().unwrap();
        old.send(data("old")).unwrap();
        body.frame().await.unwrap().unwrap();
        advance(Duration::from_secs(31)).await;
        let new = send_in_task(&there, &payment());
        handler.started(2).await;
        let feed = feeds.recv().unwrap();
        feed.send(data("new")).unwrap();
        drop(feed);
        assert_eq!(new.await.unwrap().text(), "new");

        // When the old one ends, then its client gets an error, not the normal end.
        drop(old);
        assert!(body.frame().await.unwrap().is_err());
        let again = send(&here, &payment()).await;
        assert_eq!(again.text(), "new");
    });
}
