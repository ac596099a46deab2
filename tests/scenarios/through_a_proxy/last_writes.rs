//! Completions, releases and abandons that arrive late or twice, and whose replies are lost.

use axum::response::IntoResponse;
use http::StatusCode;
use idempotent_runtime::{OnCrash, Policy, store::RecordState};

use super::place::{
    LATE, Place, Service, arrives, for_each, no_wait, on_each_server, record_of, refusing_at_first,
};
use crate::{
    proxy::{Message, Treatment},
    support::{CountingHandler, H2Conn, TestRequest, TestResponse, wait_until},
};

on_each_server! {
    a_release_that_never_arrives_goes_on_in_the_background,
    a_release_whose_repetition_is_fenced_gives_its_own_answer,
    a_release_that_arrives_late_frees_no_other_claim,
    a_completion_that_is_late_or_lost_is_repeated_and_shown_once,
    an_abandon_that_arrives_late_ends_no_other_lease,
}

/// Sends a request whose handler waits at the gate, and treats the first message about its record after the acquire.
async fn send_and_treat_last_write(
    place: &Place,
    service: &Service,
    handler: &CountingHandler,
    request: &TestRequest,
    treatment: Treatment,
) -> (TestResponse, Message) {
    let record = record_of(request).await;
    let started = handler.starts() + 1;
    handler.close_gate();
    let treat = async {
        handler.started(started).await;
        let message = place.proxy.treat(record, 0, treatment);
        handler.let_through(started);
        message
    };
    tokio::join!(service.send(request), treat)
}

async fn is_in_flight(place: &Place, record: [u8; 32]) -> bool {
    let state = place.record(record).await.map(|record| record.state);
    matches!(state, Some(RecordState::InFlight { remaining }) if !remaining.is_zero())
}

/// Case A17.
async fn a_release_that_never_arrives_goes_on_in_the_background(place: &Place) {
    let handler = refusing_at_first();
    let service = place.behind_proxy(&no_wait(), &handler).await;
    let request = TestRequest::payment("k");
    handler.close_gate();
    let first = async { service.send(&request).await };
    let losing = async {
        handler.started(1).await;
        place.cut_off(true);
        handler.open_gate();
    };
    let (first, ()) = tokio::join!(first, losing);
    assert_eq!(first.status, 429);
    assert!(is_in_flight(place, record_of(&request).await).await);
    place.cut_off(false);
    service.retry(&request).await.assert_charge(2);
}

/// Case A22.
async fn a_release_whose_repetition_is_fenced_gives_its_own_answer(place: &Place) {
    for_each([false, true], async |completed| {
        // Given a release that is applied, and whose reply is late.
        let handler = refusing_at_first();
        let service = place.behind_proxy(&no_wait(), &handler).await;
        let other = place.direct(&no_wait(), &handler).await;
        let request = TestRequest::payment(&format!("{completed}"));
        let record = record_of(&request).await;
        handler.close_gate();
        let first = async { service.send(&request).await };
        let acquires = async {
            handler.started(1).await;
            let reply = place.proxy.treat(record, 0, Treatment::HoldReply);
            handler.let_through(1);
            wait_until(|| reply.arrived()).await;

            // When another process executes meanwhile, so that the repetition is fenced.
            let executing = async {
                if completed {
                    handler.let_through(2);
                }
                other.send(&request).await
            };
            (executing.await, reply)
        };
        if completed {
            let (first, (other_answer, reply)) = tokio::join!(first, acquires);
            reply.let_go();
            other_answer.assert_charge(2);
            // Then it answers for itself.
            assert_eq!((first.status.as_u16(), first.text()), (429, "charge 1"));
        } else {
            let mut acquires = Box::pin(acquires);
            let first = tokio::select! {
                first = first => first,
                _ = &mut acquires => panic!("the other execution waits at the gate"),
            };
            assert_eq!((first.status.as_u16(), first.text()), (429, "charge 1"));
            handler.open_gate();
            acquires.await.0.assert_charge(2);
        }
        assert_eq!(handler.starts(), 2);
    })
    .await;
}

async fn a_release_that_arrives_late_frees_no_other_claim(place: &Place) {
    for_each(LATE, async |treatment| {
        // Given a release that is late, and whose repetition is applied.
        let handler = refusing_at_first();
        let service = place.behind_proxy(&no_wait(), &handler).await;
        let other = place.direct(&no_wait(), &handler).await;
        let request = TestRequest::payment(&format!("{treatment:?}"));
        let record = record_of(&request).await;
        let (first, late) =
            send_and_treat_last_write(place, &service, &handler, &request, treatment).await;
        assert_eq!(first.status, 429);
        assert!(late.arrived());

        // When another process executes, and then the release arrives.
        let second = async { other.send(&request).await };
        let release = async {
            handler.started(2).await;
            arrives(&late).await;
            // Then the other's claim stays.
            assert!(is_in_flight(place, record).await, "{treatment:?}");
            service.send(&request).await.assert_problem(409, "conflict");
            handler.open_gate();
        };
        tokio::join!(second, release).0.assert_charge(2);
        service.send(&request).await.assert_replay_of_charge(2);
    })
    .await;
}

/// Over h2 too: nobody has the answer before the completion is acknowledged.
async fn a_completion_that_is_late_or_lost_is_repeated_and_shown_once(place: &Place) {
    let treatments = [
        Treatment::HoldRequest,
        Treatment::HoldRequestAndClose,
        Treatment::LoseReply,
        Treatment::HoldReply,
    ];
    for_each(treatments, async |treatment| {
        let handler = CountingHandler::new();
        let service = place.behind_proxy(&no_wait(), &handler).await;
        let request = TestRequest::payment(&format!("{treatment:?}"));
        let (first, message) =
            send_and_treat_last_write(place, &service, &handler, &request, treatment).await;
        first.assert_charge(1);
        assert!(message.arrived(), "{treatment:?}");
        if treatment == Treatment::HoldReply {
            message.let_go();
        } else if treatment != Treatment::LoseReply {
            arrives(&message).await;
        }
        let mut conn = H2Conn::open(service.server.address).await;
        let again = conn.send(&request).await.answer().await;
        again.assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1, "{treatment:?}");
    })
    .await;
}

async fn an_abandon_that_arrives_late_ends_no_other_lease(place: &Place) {
    for_each(LATE, async |treatment| {
        // Given a panic under `on_crash = "retry"`, whose abandon is late and whose repetition is applied.
        let handler = CountingHandler::responding(|n| {
            assert!(n > 1, "the first execution");
            (StatusCode::CREATED, format!("charge {n}")).into_response()
        });
        let policy = Policy::new().wait(false).on_crash(OnCrash::Retry);
        let service = place.behind_proxy(&policy, &handler).await;
        let other = place.direct(&policy, &handler).await;
        let request = TestRequest::payment(&format!("{treatment:?}"));
        let record = record_of(&request).await;
        let (first, late) =
            send_and_treat_last_write(place, &service, &handler, &request, treatment).await;
        first.assert_problem(500, "handler_panicked");
        assert!(late.arrived());

        // When another process executes the next attempt, and then the abandon arrives.
        let second = async { other.send(&request).await };
        let abandon = async {
            handler.started(2).await;
            arrives(&late).await;
            // Then the other's lease goes on, and nobody takes it over.
            assert!(is_in_flight(place, record).await, "{treatment:?}");
            service.send(&request).await.assert_problem(409, "conflict");
            handler.open_gate();
        };
        tokio::join!(second, abandon).0.assert_charge(2);
        assert_eq!(handler.attempts(), [1, 2], "{treatment:?}");
    })
    .await;
}
