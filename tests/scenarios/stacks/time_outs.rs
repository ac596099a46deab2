//! Time-outs that cut a handler off half-way (DESIGN.md, section 3): what they answer is the outcome.

use std::{future::pending, time::Duration};

use axum::{BoxError, Router, error_handling::HandleErrorLayer};
use http::StatusCode;
use idempotent_runtime::{IdempotencyLayer, Policy};
use tower::ServiceBuilder;
use tower_http::timeout::TimeoutLayer;

use super::{engine, idempotency, payment};
use crate::support::{
    Adapter, Conn, CountingHandler, H2Conn, Server, advance, detached, in_real_time,
    run_ready_tasks, send, send_in_task, unprotected_app, with_paused_clock,
};

/// A handler that has its effect and then goes on without an end.
fn endless() -> CountingHandler {
    CountingHandler::running(|_, _| Box::pin(pending()))
}

async fn unavailable(_: BoxError) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}

/// An app whose handler is cut off by a time-out inside the layer, and the status that this answers.
fn cut_off(handler: &CountingHandler, policy: &Policy) -> [(Router, u16); 3] {
    let soon = Duration::from_millis(50);
    let layer = || idempotency().policy(policy.clone());
    let status = |status| TimeoutLayer::with_status_code(status, soon);
    let stack = ServiceBuilder::new()
        .layer(layer())
        .layer(HandleErrorLayer::new(unavailable))
        .timeout(soon);
    [
        (
            unprotected_app(handler)
                .layer(status(StatusCode::REQUEST_TIMEOUT))
                .layer(layer()),
            408,
        ),
        (
            unprotected_app(handler)
                .layer(status(StatusCode::SERVICE_UNAVAILABLE))
                .layer(layer()),
            503,
        ),
        (unprotected_app(handler).layer(stack), 503),
    ]
}

/// Sends the payment four times, over HTTP/1.1 and h2 in turn, each over a connection of its own.
async fn send_four_times(app: Router) -> Vec<(u16, bool)> {
    let server = Server::start(app).await;
    let mut answers = Vec::new();
    for n in 0..4 {
        let answer = if n % 2 == 0 {
            let mut conn = Conn::open(server.address).await;
            conn.send(&payment().wire()).await;
            conn.answer().await
        } else {
            let mut conn = H2Conn::open(server.address).await;
            let stream = conn.send(&payment()).await;
            stream.answer().await
        };
        answers.push((answer.status.as_u16(), answer.replayed()));
    }
    answers
}

#[test]
pub(super) fn a_time_out_inside_is_an_outcome_and_never_leads_to_a_second_start() {
    in_real_time(async {
        for n in 0..3 {
            let handler = endless();
            let (app, status) = cut_off(&handler, &Policy::new())
                .into_iter()
                .nth(n)
                .unwrap();
            let first_hand = [(status, false)];
            let replays = [(status, true); 3];
            assert_eq!(
                send_four_times(app).await,
                [&first_hand[..], &replays].concat()
            );
            assert_eq!((handler.starts(), handler.effects()), (1, 1), "{status}");
        }
    });
}

#[test]
pub(super) fn a_route_that_names_the_status_of_a_time_out_inside_executes_again() {
    in_real_time(async {
        // Only where the route says so: then that is what it chose.
        let handler = endless();
        let policy = Policy::new().release(&[408]);
        let [(app, status), ..] = cut_off(&handler, &policy);
        assert_eq!(send_four_times(app).await, [(status, false); 4]);
        assert_eq!(handler.starts(), 4);
    });
}

#[test]
pub(super) fn a_service_that_is_cut_off_without_an_answer_leaves_its_outcome_unknown() {
    in_real_time(async {
        // Given tower's time-out inside, whose error is answered outside of the layer.
        let handler = endless();
        let stack = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(unavailable))
            .layer(idempotency())
            .timeout(Duration::from_millis(50));
        let app = unprotected_app(&handler).layer(stack);
        let answers = send_four_times(app).await;
        assert_eq!(
            answers,
            [(503, false), (409, false), (409, false), (409, false)]
        );
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
pub(super) fn a_client_that_left_before_the_time_out_inside_gets_its_answer_by_a_retry() {
    in_real_time(async {
        for h2 in [false, true] {
            let handler = CountingHandler::new();
            handler.close_gate();
            let engine = engine();
            let time_out = TimeoutLayer::with_status_code(
                StatusCode::REQUEST_TIMEOUT,
                Duration::from_millis(200),
            );
            let app = unprotected_app(&handler)
                .layer(time_out)
                .layer(IdempotencyLayer::new(engine.clone()));
            let server = Server::start(app).await;
            if h2 {
                let mut conn = H2Conn::open(server.address).await;
                let stream = conn.send(&payment()).await;
                handler.started(1).await;
                stream.reset();
                conn.flush().await;
                conn.close();
            } else {
                let mut conn = Conn::open(server.address).await;
                conn.send(&payment().wire()).await;
                handler.started(1).await;
                conn.reset();
            }
            let answer = server.send(&payment()).await;
            assert_eq!((answer.status.as_u16(), answer.replayed()), (408, true));
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
pub(super) fn a_time_out_outside_does_not_end_the_execution() {
    with_paused_clock(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            for status in [StatusCode::REQUEST_TIMEOUT, StatusCode::SERVICE_UNAVAILABLE] {
                let (engine, handler) = (engine(), CountingHandler::new());
                let time_out = TimeoutLayer::with_status_code(status, Duration::from_secs(5));
                let app = adapter.app(&engine, &handler).layer(time_out);
                handler.close_gate();
                let first = send_in_task(&app, &payment());
                handler.started(1).await;
                advance(Duration::from_secs(6)).await;
                assert_eq!(first.await.unwrap().status, status);
                assert_eq!(detached(&engine), 1);
                handler.open_gate();
                run_ready_tasks().await;
                send(&app, &payment()).await.assert_replay_of_charge(1);
            }
        }
    });
}
