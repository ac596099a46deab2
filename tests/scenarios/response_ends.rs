//! Nobody sees the end of a response before it is stored, whatever marks its end (DESIGN.md, section 3; invariant I4).

use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::IntoResponse};
use http::{Response, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use idempotent_runtime::{Idempotency, MemoryStore};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::support::{
    CountingHandler, Fault, FaultyStore, Operation, TestRequest, advance, run_ready_tasks, send,
    send_in_task, stream, with_each_adapter,
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

/// A stream that says in its head how long it is.
fn sized_by_its_head() -> axum::response::Response {
    let mut response: Response<Body> = stream(["ans", "wer"]).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, 6.into());
    response
}

fn engine(store: &FaultyStore) -> Idempotency {
    Idempotency::builder().store(store.clone()).build().unwrap()
}

#[test]
fn a_stream_with_a_content_length_is_stored_before_any_of_it_is_sent() {
    with_each_adapter(async |adapter| {
        // Given a store that holds the completion back.
        let store = FaultyStore::over(MemoryStore::new());
        let handler = CountingHandler::responding(|_| sized_by_its_head());
        let app = adapter.app(&engine(&store), &handler);
        let completion = Arc::new(Semaphore::new(0));
        store.fail_next(
            Operation::Complete,
            Fault::HoldRequest(Arc::clone(&completion)),
        );
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        run_ready_tasks().await;
        assert!(!first.is_finished(), "nothing is sent yet");
        completion.add_permits(1);
        assert_eq!(first.await.unwrap().text(), "answer");
        let replay = send(&app, &payment()).await;
        assert!(replay.replayed());
        assert_eq!(replay.text(), "answer");
    });
}

#[test]
fn the_last_frame_of_a_stream_is_held_back_until_the_outcome_is_stored() {
    with_each_adapter(async |adapter| {
        let store = FaultyStore::over(MemoryStore::new());
        let handler =
            CountingHandler::responding(|_| stream(["one", "two", "three"]).into_response());
        let app = adapter.app(&engine(&store), &handler);
        let completion = Arc::new(Semaphore::new(0));
        store.fail_next(
            Operation::Complete,
            Fault::HoldRequest(Arc::clone(&completion)),
        );
        let response = app.clone().oneshot(payment().request()).await.unwrap();
        let mut body = response.into_body();
        for expected in ["one", "two"] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), expected);
        }
        run_ready_tasks().await;
        let mut last = std::pin::pin!(body.frame());
        assert!(crate::support::poll_once(last.as_mut()).await.is_none());
        completion.add_permits(1);
        let frame = last.await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "three");
    });
}

#[test]
fn a_stream_whose_outcome_is_not_stored_never_shows_its_end() {
    with_each_adapter(async |adapter| {
        for length in [None, Some(())] {
            let store = FaultyStore::over(MemoryStore::new());
            let handler = CountingHandler::responding(move |_| match length {
                Some(()) => sized_by_its_head(),
                None => stream(["ans", "wer"]).into_response(),
            });
            let app = adapter.app(&engine(&store), &handler);
            store.fail_always(Operation::Complete, Fault::Unreachable);
            let response = tokio::spawn(app.clone().oneshot(payment().request()));
            run_ready_tasks().await;
            advance(Duration::from_secs(20)).await;
            let response = response.await.unwrap().unwrap();
            let status = response.status();
            let body = response.into_body().collect().await;
            match length {
                Some(()) => assert_eq!(status, 409),
                None => assert!(body.is_err(), "the client sees a broken stream"),
            }
            store.heal();
            advance(Duration::from_secs(60)).await;
            let replay = send(&app, &payment()).await;
            assert_eq!(replay.text(), "answer");
            assert_eq!(handler.starts(), 1);
        }
    });
}
