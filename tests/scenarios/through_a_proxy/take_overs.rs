//! Take-overs of crashed executions: messages that are late, and what becomes of the attempt.

use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use http::StatusCode;
use idempotent_runtime::{Idempotency, OnCrash, Policy, store::RecordState};

use super::place::{
    LATE, Place, ServerKind, arrives, for_each, no_wait, on_each_server, record_of,
};
use crate::{
    proxy::Treatment,
    support::{Adapter, CountingHandler, TestRequest, crash, wait_until, waiters},
};

on_each_server! {
    a_take_over_that_arrives_late_ends_no_lease_of_its_own_process,
    a_take_over_that_arrives_late_ends_no_lease_of_another_process,
    a_second_attempt_that_releases_is_abandoned,
}

const LEASE: Duration = Duration::from_secs(1);

fn retrying() -> Policy {
    Policy::new().lease(LEASE).on_crash(OnCrash::Retry)
}

/// The first execution crashes, the second asks to be sent again, the others charge.
fn handler() -> CountingHandler {
    CountingHandler::responding(|n| {
        let status = match n {
            2 => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::CREATED,
        };
        (status, format!("charge {n}")).into_response()
    })
}

/// A process executes this request and crashes, and its lease lapses.
async fn crashed(place: &Place, request: &TestRequest, handler: &CountingHandler) {
    let builder = Idempotency::builder().policy(retrying());
    handler.close_gate();
    let since = Instant::now();
    let store = place.store.clone();
    crash(Adapter::Attribute, builder, store, request, handler).await;
    handler.open_gate();
    wait_until(|| since.elapsed() > LEASE * 2).await;
}

/// How many messages of a request come before the one that takes a lapsed lease over: the acquire that shows the crash,
/// and on MySQL the read of the second one.
fn before_take_over(place: &Place) -> usize {
    match place.kind {
        ServerKind::MariaDb => 2,
        ServerKind::Redis | ServerKind::Postgres => 1,
    }
}

/// Case A19.
async fn a_take_over_that_arrives_late_ends_no_lease_of_its_own_process(place: &Place) {
    // Given a crash, and a retry whose take-over is late.
    let handler = CountingHandler::new();
    let request = TestRequest::payment("k");
    let record = record_of(&request).await;
    crashed(place, &request, &handler).await;
    let service = place.behind_proxy(&retrying(), &handler).await;
    handler.close_gate();
    let late = place
        .proxy
        .treat(record, before_take_over(place), Treatment::HoldRequest);
    let first = async { service.send(&request).await };
    let second = async {
        wait_until(|| late.arrived()).await;
        service.send(&request).await
    };
    let lapses = async {
        // When one of the two requests of the process has taken over and executes, its lease lapses because its renewals
        // do not arrive, and the late take-over arrives.
        handler.started(2).await;
        for _ in 0..100 {
            place.proxy.treat(record, 0, Treatment::HoldRequest);
        }
        let since = Instant::now();
        wait_until(|| since.elapsed() > LEASE * 2).await;
        let lapsed = place.record(record).await.expect("a record");
        assert!(
            matches!(lapsed.state, RecordState::InFlight { remaining } if remaining.is_zero()),
            "{lapsed:?}"
        );
        arrives(&late).await;

        // Then it has changed nothing.
        assert_eq!(
            place.record(record).await.map(|record| record.attempt),
            Some(2)
        );
        place.proxy.treat_no_more();
        wait_until(|| waiters(&service.engine) == 1).await;
        handler.open_gate();
    };

    // And the other one follows it.
    let (first, second, ()) = tokio::join!(first, second, lapses);
    let (executed, followed) = if first.replayed() {
        (second, first)
    } else {
        (first, second)
    };
    executed.assert_charge(2);
    followed.assert_replay_of_charge(2);
    assert_eq!(handler.attempts(), [1, 2]);
}

async fn a_take_over_that_arrives_late_ends_no_lease_of_another_process(place: &Place) {
    for_each(LATE, async |treatment| {
        // Given a crash, and a retry whose take-over is late, whose repetition is acquired, and whose handler releases.
        let handler = handler();
        let request = TestRequest::payment(&format!("{treatment:?}"));
        let record = record_of(&request).await;
        crashed(place, &request, &handler).await;
        let policy = retrying().wait(false).lease(Duration::from_secs(30));
        let service = place.behind_proxy(&policy, &handler).await;
        let other = place.direct(&policy, &handler).await;
        let late = place
            .proxy
            .treat(record, before_take_over(place), treatment);
        let refused = service.retry(&request).await;
        assert_eq!((refused.status.as_u16(), refused.text()), (429, "charge 2"));
        assert!(late.arrived(), "{treatment:?}");

        // When another process executes the next attempt, and the take-over arrives.
        handler.close_gate();
        let third = async { other.retry(&request).await };
        let arrival = async {
            handler.started(3).await;
            arrives(&late).await;
            service.send(&request).await.assert_problem(409, "conflict");
            handler.open_gate();
        };

        // Then it changes nothing.
        tokio::join!(third, arrival).0.assert_charge(3);
        assert_eq!(handler.attempts(), [1, 2, 3], "{treatment:?}");
        service.send(&request).await.assert_replay_of_charge(3);
    })
    .await;
}

/// Case A21.
async fn a_second_attempt_that_releases_is_abandoned(place: &Place) {
    let handler = handler();
    let request = TestRequest::payment("k");
    crashed(place, &request, &handler).await;
    let policy = no_wait().lease(LEASE).on_crash(OnCrash::Retry);
    let service = place.behind_proxy(&policy, &handler).await;
    assert_eq!(service.retry(&request).await.status, 429);
    service.retry(&request).await.assert_charge(3);
    assert_eq!(handler.attempts(), [1, 2, 3]);
}
