//! Clients that go away in the middle never stop the handler (contract, section 4).

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
    Ask, BoxFuture, Conn, Conn2, Face, Server, Till, asking, by_hand, detached, moment, pass, real,
    settle, until,
};

/// How often each way to leave is tried.
const ROUNDS: usize = 50;

/// A handler that takes its time in several steps, so that a client can leave between any two of them.
fn unhurried() -> Till {
    fn steps(n: usize, _: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            for _ in 0..3 {
                moment(600).await;
            }
            (StatusCode::CREATED, format!("charge {n}")).into_response()
        })
    }
    Till::serving(steps)
}

fn shop(till: &Till) -> (Idempotency, Router) {
    let engine = Idempotency::builder().build().unwrap();
    let shop = Face::Attribute.shop(&engine, till);
    (engine, shop)
}

/// A way to leave.
#[derive(Clone, Copy, Debug)]
enum Exit {
    Close,
    Reset,
    HalfClose,
    ResetStream,
    CloseAll,
}

const EXITS: [Exit; 5] = [
    Exit::Close,
    Exit::Reset,
    Exit::HalfClose,
    Exit::ResetStream,
    Exit::CloseAll,
];

/// Sends a request, waits for this to be over, and leaves.
async fn leave(server: &Server, ask: &Ask, exit: Exit, when: impl Future<Output = ()>) {
    if let Exit::ResetStream | Exit::CloseAll = exit {
        let mut conn = Conn2::open(server.address).await;
        let stream = conn.send(ask).await;
        when.await;
        if let Exit::ResetStream = exit {
            stream.reset();
            // The connection lives on until the reset is on its way.
            settle().await;
            moment(2000).await;
        }
        conn.close();
        return;
    }
    let mut conn = Conn::open(server.address).await;
    conn.send(&ask.wire()).await;
    when.await;
    match exit {
        Exit::Reset => conn.reset(),
        Exit::HalfClose => {
            conn.half_close().await;
            conn.ended().await;
        }
        _ => conn.close(),
    }
}

/// Many clients leave at random moments; each one's effect happens once, and its retry shows it.
fn leave_at_random_moments(exit: Exit) {
    real(async move {
        let till = unhurried();
        let (engine, shop) = shop(&till);
        let server = Server::start(shop).await;
        for round in 0..ROUNDS {
            let ask = Ask::pay(&format!("k{round}"));
            leave(&server, &ask, exit, moment(2500)).await;

            // When the client comes back, whether its first request arrived or not.
            let answer = server.ask(&ask).await;
            let again = server.ask(&ask).await;

            // Then the effect happened once.
            assert_eq!(answer.status, 201, "{answer:?}");
            assert!(again.replayed(), "{again:?}");
            assert_eq!(again.body, answer.body);
        }
        until(|| detached(&engine) == 0).await;
        assert_eq!((till.starts(), till.effects()), (ROUNDS, ROUNDS));
    });
}

#[test]
fn a_client_may_close_at_any_moment() {
    leave_at_random_moments(Exit::Close);
}

#[test]
fn a_client_may_reset_its_connection_at_any_moment() {
    leave_at_random_moments(Exit::Reset);
}

#[test]
fn a_client_may_half_close_at_any_moment() {
    leave_at_random_moments(Exit::HalfClose);
}

#[test]
fn a_client_may_reset_its_h2_stream_at_any_moment() {
    leave_at_random_moments(Exit::ResetStream);
}

#[test]
fn a_client_may_drop_its_h2_connection_at_any_moment() {
    leave_at_random_moments(Exit::CloseAll);
}

#[test]
fn an_execution_whose_client_left_in_the_middle_runs_to_its_end() {
    real(async {
        for exit in EXITS {
            // Given handlers held in the middle of their work.
            let till = Till::new();
            let (engine, shop) = shop(&till);
            let server = Server::start(shop).await;
            till.hold();
            for n in 1..=10 {
                // When the clients leave, and the server notices.
                let ask = Ask::pay(&format!("k{n}"));
                leave(&server, &ask, exit, till.started(n)).await;
                until(|| detached(&engine) == n).await;
            }
            assert_eq!(till.effects(), 0, "{exit:?}");

            // Then all of them have their effect all the same, and the retries replay it.
            till.open();
            until(|| detached(&engine) == 0).await;
            assert_eq!(till.effects(), 10, "{exit:?}");
            for n in 1..=10 {
                let answer = server.ask(&Ask::pay(&format!("k{n}"))).await;
                answer.is_replay_of_charge(n);
            }
            assert_eq!(till.starts(), 10, "{exit:?}");
        }
    });
}

#[test]
fn a_retry_on_a_new_connection_waits_for_the_execution_its_client_left() {
    real(async {
        for exit in EXITS {
            let till = Till::new();
            let (engine, shop) = shop(&till);
            let server = Server::start(shop).await;
            till.hold();
            let ask = Ask::pay("k");
            leave(&server, &ask, exit, till.started(1)).await;
            let mut conn = Conn::open(server.address).await;
            conn.send(&ask.wire()).await;
            until(|| crate::support::waiters(&engine) == 1).await;
            till.open();
            conn.answer().await.is_replay_of_charge(1);
            assert_eq!((till.starts(), till.effects()), (1, 1), "{exit:?}");
        }
    });
}

#[test]
fn an_outer_time_out_does_not_stop_the_handler() {
    by_hand(async {
        for face in [Face::Attribute, Face::Layer] {
            // Given a shop behind a time-out of five seconds.
            let till = Till::new();
            let engine = Idempotency::builder().build().unwrap();
            let late =
                TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(5));
            let shop = face.shop(&engine, &till).layer(late);
            till.hold();
            let first = asking(&shop, &Ask::pay("k"));
            till.started(1).await;

            // When it strikes in the middle of the execution.
            pass(Duration::from_secs(6)).await;
            assert_eq!(first.await.unwrap().status, 504);
            assert_eq!(detached(&engine), 1);

            // Then the execution goes on, beyond its first lease, and its retry shows its outcome.
            pass(Duration::from_secs(60)).await;
            till.open();
            settle().await;
            assert_eq!((till.effects(), detached(&engine)), (1, 0));
            crate::support::ask(&shop, &Ask::pay("k"))
                .await
                .is_replay_of_charge(1);
        }
    });
}

#[test]
fn outer_time_outs_at_random_moments_never_lead_to_a_second_execution() {
    real(async {
        let till = unhurried();
        let (engine, shop) = shop(&till);
        for round in 0..ROUNDS {
            let micros = rand::random_range(0..2500);
            let late = TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                Duration::from_micros(micros),
            );
            let hasty = shop.clone().layer(late);
            let ask = Ask::pay(&format!("k{round}"));
            let first = crate::support::ask(&hasty, &ask).await;
            assert!([201, 504].contains(&first.status.as_u16()), "{first:?}");
            let answer = crate::support::ask(&shop, &ask).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        until(|| detached(&engine) == 0).await;
        assert_eq!((till.starts(), till.effects()), (ROUNDS, ROUNDS));
    });
}

#[test]
fn a_future_dropped_after_each_of_its_polls_executes_at_most_once() {
    by_hand(async {
        for face in [Face::Attribute, Face::Layer] {
            for polls in 0..12 {
                // Given a handler of several steps, and a store that also needs some.
                let till = Till::serving(|n, _| {
                    Box::pin(async move {
                        for _ in 0..4 {
                            tokio::task::yield_now().await;
                        }
                        (StatusCode::CREATED, format!("charge {n}")).into_response()
                    })
                });
                let store = crate::support::Faulty::slow();
                let engine = Idempotency::builder().store(store).build().unwrap();
                let shop = face.shop(&engine, &till);

                // When the connection drops the request after so many polls.
                let request = Ask::pay("k").request();
                let mut request = Box::pin(tower::ServiceExt::oneshot(shop.clone(), request));
                for _ in 0..polls {
                    if crate::support::poll_once(request.as_mut()).await.is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                drop(request);

                // Then its retry shows the one outcome, whoever executed it.
                let answer = crate::support::ask(&shop, &Ask::pay("k")).await;
                assert_eq!((answer.status.as_u16(), answer.text()), (201, "charge 1"));
                settle().await;
                assert_eq!((till.starts(), detached(&engine)), (1, 0), "{polls}");
            }
        }
    });
}
