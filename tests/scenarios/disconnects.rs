//! A client that disconnects never stops the handler (DESIGN.md, section 4; invariant I10).

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use idempotent_runtime::Idempotency;
use tower_http::timeout::TimeoutLayer;

use crate::support::{
    Adapter, BoxFuture, Conn, CountingHandler, DISCONNECTS, Disconnect, Server, TestRequest,
    advance, detached, in_real_time, random_pause, run_ready_tasks, send_and_disconnect,
    send_in_task, wait_until, with_paused_clock,
};

/// How often each kind of disconnect is tried.
const ROUNDS: usize = 50;

/// A handler of several short steps, so that a client can disconnect between any two of them.
fn handler_of_several_steps() -> CountingHandler {
    fn steps(n: usize, _: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            for _ in 0..3 {
                random_pause(600).await;
            }
            (StatusCode::CREATED, format!("charge {n}")).into_response()
        })
    }
    CountingHandler::running(steps)
}

fn app(handler: &CountingHandler) -> (Idempotency, Router) {
    let engine = Idempotency::builder().build().unwrap();
    let app = Adapter::Attribute.app(&engine, handler);
    (engine, app)
}

/// Clients disconnect at random moments; each effect happens once, and the retry gets its outcome.
fn disconnect_at_random_moments(disconnect: Disconnect) {
    in_real_time(async move {
        let handler = handler_of_several_steps();
        let (engine, app) = app(&handler);
        let server = Server::start(app).await;
        for round in 0..ROUNDS {
            let request = TestRequest::payment(&format!("k{round}"));
            send_and_disconnect(&server, &request, disconnect, random_pause(2500)).await;

            // When the client sends its request again, whether the first one arrived or not.
            let answer = server.send(&request).await;
            let again = server.send(&request).await;

            // Then the effect happened once.
            assert_eq!(answer.status, 201, "{answer:?}");
            assert!(again.replayed(), "{again:?}");
            assert_eq!(again.body, answer.body);
        }
        wait_until(|| detached(&engine) == 0).await;
        assert_eq!((handler.starts(), handler.effects()), (ROUNDS, ROUNDS));
    });
}

#[test]
fn a_client_may_close_its_connection_at_any_moment() {
    disconnect_at_random_moments(Disconnect::Close);
}

#[test]
fn a_client_may_reset_its_connection_at_any_moment() {
    disconnect_at_random_moments(Disconnect::Reset);
}

#[test]
fn a_client_may_half_close_at_any_moment() {
    disconnect_at_random_moments(Disconnect::HalfClose);
}

#[test]
fn a_client_may_reset_its_h2_stream_at_any_moment() {
    disconnect_at_random_moments(Disconnect::ResetStream);
}

#[test]
fn a_client_may_drop_its_h2_connection_at_any_moment() {
    disconnect_at_random_moments(Disconnect::CloseAll);
}

#[test]
fn an_execution_whose_client_disconnected_runs_to_its_end() {
    in_real_time(async {
        for disconnect in DISCONNECTS {
            // Given handlers held before their effect.
            let handler = CountingHandler::new();
            let (engine, app) = app(&handler);
            let server = Server::start(app).await;
            handler.close_gate();
            for n in 1..=10 {
                // When the clients disconnect, and the server notices.
                let request = TestRequest::payment(&format!("k{n}"));
                send_and_disconnect(&server, &request, disconnect, handler.started(n)).await;
                wait_until(|| detached(&engine) == n).await;
            }
            assert_eq!(handler.effects(), 0, "{disconnect:?}");

            // Then all of them have their effect all the same, and the retries replay the outcome.
            handler.open_gate();
            wait_until(|| detached(&engine) == 0).await;
            assert_eq!(handler.effects(), 10, "{disconnect:?}");
            for n in 1..=10 {
                let answer = server.send(&TestRequest::payment(&format!("k{n}"))).await;
                answer.assert_replay_of_charge(n);
            }
            assert_eq!(handler.starts(), 10, "{disconnect:?}");
        }
    });
}

#[test]
fn a_retry_on_a_new_connection_waits_for_the_detached_execution() {
    in_real_time(async {
        for disconnect in DISCONNECTS {
            let handler = CountingHandler::new();
            let (engine, app) = app(&handler);
            let server = Server::start(app).await;
            handler.close_gate();
            let request = TestRequest::payment("k");
            send_and_disconnect(&server, &request, disconnect, handler.started(1)).await;
            let mut conn = Conn::open(server.address).await;
            conn.send(&request.wire()).await;
            wait_until(|| crate::support::waiters(&engine) == 1).await;
            handler.open_gate();
            conn.answer().await.assert_replay_of_charge(1);
            assert_eq!(
                (handler.starts(), handler.effects()),
                (1, 1),
                "{disconnect:?}"
            );
        }
    });
}

#[test]
fn an_outer_time_out_does_not_stop_the_handler() {
    with_paused_clock(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            // Given an app behind a time-out of five seconds.
            let handler = CountingHandler::new();
            let engine = Idempotency::builder().build().unwrap();
            let time_out =
                TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(5));
            let app = adapter.app(&engine, &handler).layer(time_out);
            handler.close_gate();
            let first = send_in_task(&app, &TestRequest::payment("k"));
            handler.started(1).await;

            // When it elapses during the execution.
            advance(Duration::from_secs(6)).await;
            assert_eq!(first.await.unwrap().status, 504);
            assert_eq!(detached(&engine), 1);

            // Then the execution goes on beyond its first lease, and the retry gets its outcome.
            advance(Duration::from_secs(60)).await;
            handler.open_gate();
            run_ready_tasks().await;
            assert_eq!((handler.effects(), detached(&engine)), (1, 0));
            crate::support::send(&app, &TestRequest::payment("k"))
                .await
                .assert_replay_of_charge(1);
        }
    });
}

#[test]
fn outer_time_outs_at_random_moments_never_lead_to_a_second_execution() {
    in_real_time(async {
        let handler = handler_of_several_steps();
        let (engine, app) = app(&handler);
        for round in 0..ROUNDS {
            let micros = rand::random_range(0..2500);
            let time_out = TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                Duration::from_micros(micros),
            );
            let behind_time_out = app.clone().layer(time_out);
            let request = TestRequest::payment(&format!("k{round}"));
            let first = crate::support::send(&behind_time_out, &request).await;
            assert!([201, 504].contains(&first.status.as_u16()), "{first:?}");
            let answer = crate::support::send(&app, &request).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        wait_until(|| detached(&engine) == 0).await;
        assert_eq!((handler.starts(), handler.effects()), (ROUNDS, ROUNDS));
    });
}

#[test]
fn a_future_dropped_after_each_of_its_polls_executes_at_most_once() {
    with_paused_clock(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            for polls in 0..12 {
                // Given a handler of several steps, and a store whose operations take several polls too.
                let handler = CountingHandler::running(|n, _| {
                    Box::pin(async move {
                        for _ in 0..4 {
                            tokio::task::yield_now().await;
                        }
                        (StatusCode::CREATED, format!("charge {n}")).into_response()
                    })
                });
                let store = crate::support::FaultyStore::slow();
                let engine = Idempotency::builder().store(store).build().unwrap();
                let app = adapter.app(&engine, &handler);

                // When the connection drops the request's future after so many polls.
                let request = TestRequest::payment("k").request();
                let mut request = Box::pin(tower::ServiceExt::oneshot(app.clone(), request));
                for _ in 0..polls {
                    if crate::support::poll_once(request.as_mut()).await.is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                drop(request);

                // Then the retry gets the one outcome, whichever of the two requests executed.
                let answer = crate::support::send(&app, &TestRequest::payment("k")).await;
                assert_eq!((answer.status.as_u16(), answer.text()), (201, "charge 1"));
                run_ready_tasks().await;
                assert_eq!((handler.starts(), detached(&engine)), (1, 0), "{polls}");
            }
        }
    });
}
