//! Responses within and beyond the limits.

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

use super::{data, engine, open, payment, streaming_handler};
use crate::support::{
    CountingHandler, Fault, FaultyStore, Operation, TestRequest, advance, detached, endless,
    frames, run_ready_tasks, send, stream, with_each_adapter,
};

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
            for (size, stored) in [
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
                if stored {
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
        for (count, size, stored) in [(60, 10, true), (70, 10, false), (3, 6000, false)] {
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
            if stored {
                assert_eq!(again.lines("x-many"), first.lines("x-many"));
            } else {
                again.assert_problem(409, "response_not_stored");
            }
            assert_eq!(handler.starts(), 1);
        }
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
fn a_stream_beyond_the_limit_is_passed_through_and_leaves_a_tombstone() {
    with_each_adapter(async |adapter| {
        let (handler, feeds) = streaming_handler();
        let policy = Policy::new().max_response(8).wait(false);
        let app = adapter.app(&engine(policy), &handler);
        let mut body = open(&app, &payment()).await.into_body();
        let feed = feeds.recv().unwrap();
        let pieces = ["1234", "5678", "90"];
        for piece in pieces {
            feed.send(data(piece)).unwrap();
        }
        for piece in pieces {
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
