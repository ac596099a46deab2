//! Bodies that fail, panic or carry trailers.

use axum::{body::Body, response::IntoResponse};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use idempotent_runtime::Policy;

use super::{data, engine, open, payment, streaming_handler};
use crate::support::{CountingHandler, frames, run_ready_tasks, send, with_each_adapter};

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
