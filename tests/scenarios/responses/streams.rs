//! Streams: passed through, recorded and replayed.

use std::time::Duration;

use axum::response::IntoResponse;
use http::StatusCode;
use http_body_util::BodyExt;
use idempotent_runtime::{Idempotency, MemoryStore, OnCrash, Policy};

use super::{data, engine, open, payment, streaming_handler};
use crate::support::{
    Adapter, Conn, CountingHandler, Fault, FaultyStore, H2Conn, Operation, Server, advance,
    detached, endless, in_real_time, poll_once, run_ready_tasks, send, send_in_task, stream,
    wait_until, with_each_adapter, with_paused_clock,
};

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

            // When frames are sent one by one, then each arrives when the next is there, and the last one at the end.
            feed.send(data("one ")).unwrap();
            for (next, arrives) in [("two ", "one "), ("three", "two ")] {
                feed.send(data(next)).unwrap();
                assert_eq!(conn.try_chunk().await.unwrap(), arrives);
            }
            drop(feed);
            assert_eq!(conn.try_chunk().await.unwrap(), "three");
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
        let [engine, other] = [(); 2].map(|()| {
            let engine = Idempotency::builder().store(store.clone());
            engine.policy(policy.clone()).build().unwrap()
        });
        let (app, other) = (
            adapter.app(&engine, &handler),
            adapter.app(&other, &handler),
        );
        store.fail_always(Operation::Complete, Fault::Unreachable);
        let mut body = open(&app, &payment()).await.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "one");

        // Then the client sees a broken stream, not all the data of one that no retry will get.
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());

        // And in other processes the key stays claimed while the store is unreachable, lease after lease.
        advance(Duration::from_secs(120)).await;
        let waiter = send_in_task(&other, &payment());
        run_ready_tasks().await;
        assert!(!waiter.is_finished());
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");

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
fn duplicates_of_a_stream_wait_for_its_end() {
    with_each_adapter(async |adapter| {
        let (handler, feeds) = streaming_handler();
        let app = adapter.app(&engine(Policy::new()), &handler);
        let mut body = open(&app, &payment()).await.into_body();
        let feed = feeds.recv().unwrap();
        let waiter = send_in_task(&app, &payment());
        for piece in ["one", " two"] {
            feed.send(data(piece)).unwrap();
        }
        body.frame().await.unwrap().unwrap();
        run_ready_tasks().await;
        assert!(!waiter.is_finished());
        assert!(poll_once(body.frame()).await.is_none(), "it is held back");
        drop(feed);
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.is_none());
        let answer = waiter.await.unwrap();
        assert_eq!(answer.text(), "one two");
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
                for piece in ["one", " two"] {
                    feed.send(data(piece)).unwrap();
                }
                stream.reset();
                wait_until(|| detached(&engine) == 1).await;
            } else {
                let mut conn = Conn::open(server.address).await;
                conn.send(&payment().wire()).await;
                conn.try_head().await.unwrap();
                feed = feeds.recv().unwrap();
                for piece in ["one", " two"] {
                    feed.send(data(piece)).unwrap();
                }
                conn.try_chunk().await.unwrap();
                if round % 3 == 0 {
                    conn.close();
                } else {
                    conn.reset();
                }
                wait_until(|| detached(&engine) == 1).await;
            }

            // When the stream goes on and ends without them.
            feed.send(data(" three")).unwrap();
            drop(feed);
            wait_until(|| detached(&engine) == 0).await;

            // Then the retry gets all of it.
            let again = server.send(&payment()).await;
            assert_eq!(
                (again.status.as_u16(), again.text()),
                (201, "one two three")
            );
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
        for piece in ["old", " end"] {
            old.send(data(piece)).unwrap();
        }
        body.frame().await.unwrap().unwrap();
        advance(Duration::from_secs(31)).await;
        let new = send_in_task(&there, &payment());
        handler.started(2).await;
        let feed = feeds.recv().unwrap();
        feed.send(data("new")).unwrap();
        drop(feed);
        assert_eq!(new.await.unwrap().text(), "new");

        // When the old one ends, then its client gets an error, not the last frame and the normal end.
        drop(old);
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
        let again = send(&here, &payment()).await;
        assert_eq!(again.text(), "new");
    });
}
