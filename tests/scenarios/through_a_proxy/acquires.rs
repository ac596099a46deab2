//! Acquires that arrive late or twice, and whose replies are lost or late.

use std::time::{Duration, Instant};

use idempotent_runtime::{OnCrash, Policy};

use super::place::{
    LATE, Place, arrives, for_each, no_wait, on_each_server, record_of, refusing_at_first,
};
use crate::{
    proxy::{Message, Treatment},
    support::{
        CountingHandler, DISCONNECTS, TestRequest, detached, send_and_disconnect, wait_until,
        waiters,
    },
};

on_each_server! {
    an_acquire_that_arrives_after_its_request_released_is_withdrawn,
    an_acquire_whose_every_reply_was_lost_is_withdrawn,
    an_acquire_that_arrives_after_its_request_got_a_conflict_is_withdrawn,
    an_acquire_that_arrives_after_its_waiting_client_left_is_withdrawn,
    each_of_two_late_acquires_is_withdrawn,
    an_acquire_that_is_under_way_when_its_client_leaves_is_withdrawn,
    an_acquire_that_is_under_way_when_its_client_leaves_still_executes_once,
    a_claim_whose_reply_is_read_after_its_lease_starts_nothing,
    duplicates_follow_an_execution_of_their_process_past_the_expiry_of_its_record,
}

/// Case A10. On a connection that is closed at once the store gets an error, and must not hide it by a repetition of its
/// own.
async fn an_acquire_that_arrives_after_its_request_released_is_withdrawn(place: &Place) {
    for_each(LATE, async |treatment| {
        // Given an acquire that is late, whose repetition is acquired, and a handler that releases.
        let handler = refusing_at_first();
        let service = place.behind_proxy(&no_wait(), &handler).await;
        let request = TestRequest::payment(&format!("{treatment:?}"));
        let record = record_of(&request).await;
        let late = place.proxy.treat(record, 0, treatment);
        assert_eq!(service.send(&request).await.status, 429, "{treatment:?}");
        assert!(late.arrived(), "{treatment:?}");
        place.until_free(record).await;

        // When it arrives, then the key is not blocked.
        arrives(&late).await;
        service.retry(&request).await.assert_charge(2);
    })
    .await;
}

/// Case A13.
async fn an_acquire_whose_every_reply_was_lost_is_withdrawn(place: &Place) {
    let handler = CountingHandler::new();
    let service = place.behind_proxy(&no_wait(), &handler).await;
    let request = TestRequest::payment("k");
    let record = record_of(&request).await;
    let lost = [(); 2].map(|()| place.proxy.treat(record, 0, Treatment::LoseReply));
    let answer = service.send(&request).await;
    answer.assert_problem(503, "store_unavailable");
    assert!(lost.iter().all(Message::answered));
    assert_eq!(handler.starts(), 0);
    service.retry(&request).await.assert_charge(1);
}

/// Case A14.
async fn an_acquire_that_arrives_after_its_request_got_a_conflict_is_withdrawn(place: &Place) {
    for_each(LATE, async |treatment| {
        // Given an execution here, and a duplicate there whose first acquire is late and whose second finds it in flight.
        let handler = refusing_at_first();
        let here = place.direct(&no_wait(), &handler).await;
        let there = place.behind_proxy(&no_wait(), &handler).await;
        let request = TestRequest::payment(&format!("{treatment:?}"));
        let record = record_of(&request).await;
        handler.close_gate();
        let first = async { here.send(&request).await };
        let conflict = async {
            handler.started(1).await;
            let late = place.proxy.treat(record, 0, treatment);
            let answer = there.send(&request).await;
            answer.assert_problem(409, "conflict");
            handler.open_gate();
            late
        };

        // When the execution releases the key, and then the late acquire arrives.
        let (first, late) = tokio::join!(first, conflict);
        assert_eq!(first.status, 429);
        arrives(&late).await;

        // Then the key is not blocked, in either process.
        there.retry(&request).await.assert_charge(2);
        here.send(&request).await.assert_replay_of_charge(2);
    })
    .await;
}

/// Case A14, for a client that leaves: over HTTP/1.1 and over h2.
async fn an_acquire_that_arrives_after_its_waiting_client_left_is_withdrawn(place: &Place) {
    for_each(DISCONNECTS, async |disconnect| {
        let handler = refusing_at_first();
        let here = place.direct(&Policy::new(), &handler).await;
        let there = place.behind_proxy(&Policy::new(), &handler).await;
        // Given an execution here, and a duplicate there that waits after an acquire that is late.
        let request = TestRequest::payment(&format!("{disconnect:?}"));
        let record = record_of(&request).await;
        handler.close_gate();
        let first = async { here.send(&request).await };
        let leaving = async {
            handler.started(1).await;
            let late = place.proxy.treat(record, 0, Treatment::HoldRequest);
            let waits = wait_until(|| late.arrived() && waiters(&there.engine) == 1);
            send_and_disconnect(&there.server, &request, disconnect, waits).await;
            wait_until(|| waiters(&there.engine) == 0).await;
            handler.open_gate();
            late
        };

        // When its client leaves, the execution releases the key, and the late acquire arrives.
        let (first, late) = tokio::join!(first, leaving);
        assert_eq!(first.status, 429, "{disconnect:?}");
        arrives(&late).await;

        // Then the key is not blocked.
        there.retry(&request).await.assert_charge(2);
    })
    .await;
}

/// Case A15.
async fn each_of_two_late_acquires_is_withdrawn(place: &Place) {
    let handler = CountingHandler::new();
    let service = place.behind_proxy(&no_wait(), &handler).await;
    let request = TestRequest::payment("k");
    let record = record_of(&request).await;
    let late = LATE.map(|treatment| place.proxy.treat(record, 0, treatment));
    let answer = service.send(&request).await;
    answer.assert_problem(503, "store_unavailable");
    for message in &late {
        assert!(message.arrived());
        // The first withdrawal that succeeds is not the last.
        arrives(message).await;
        place.until_free(record).await;
    }
    service.retry(&request).await.assert_charge(1);
}

/// Case A16, over HTTP/1.1 and h2. The repetition executes, and its handler releases.
async fn an_acquire_that_is_under_way_when_its_client_leaves_is_withdrawn(place: &Place) {
    for_each(DISCONNECTS, async |disconnect| {
        let handler = refusing_at_first();
        let service = place.behind_proxy(&no_wait(), &handler).await;
        let request = TestRequest::payment(&format!("{disconnect:?}"));
        let record = record_of(&request).await;
        let late = place.proxy.treat(record, 0, Treatment::HoldRequest);
        let under_way = wait_until(|| late.arrived());
        send_and_disconnect(&service.server, &request, disconnect, under_way).await;
        wait_until(|| handler.effects() == 1 && detached(&service.engine) == 0).await;
        place.until_free(record).await;
        arrives(&late).await;
        service.retry(&request).await.assert_charge(2);
    })
    .await;
}

/// Case A16, over HTTP/1.1 and h2. What the client that left had asked for is done once, and its retry replays it.
async fn an_acquire_that_is_under_way_when_its_client_leaves_still_executes_once(place: &Place) {
    for_each(DISCONNECTS, async |disconnect| {
        let handler = CountingHandler::new();
        let service = place.behind_proxy(&Policy::new(), &handler).await;
        let request = TestRequest::payment(&format!("{disconnect:?}"));
        let record = record_of(&request).await;
        let slow = place.proxy.treat(record, 0, Treatment::HoldReply);
        let under_way = wait_until(|| slow.arrived());
        send_and_disconnect(&service.server, &request, disconnect, under_way).await;
        slow.let_go();
        let answer = service.retry(&request).await;
        answer.assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1, "{disconnect:?}");
    })
    .await;
}

/// Case A18.
async fn a_claim_whose_reply_is_read_after_its_lease_starts_nothing(place: &Place) {
    const LEASE: Duration = Duration::from_secs(1);
    for ttl in [Duration::from_secs(3600), Duration::from_secs(1)] {
        // Given an acquire whose reply is read when its lease has lapsed and, with the short ttl, its record has expired.
        let policy = no_wait().lease(LEASE).ttl(ttl);
        let handler = CountingHandler::new();
        let other = place.direct(&policy, &handler).await;
        let slow = place.patient(LEASE * 30, &policy, &handler).await;
        let request = TestRequest::payment(&format!("{ttl:?}"));
        let record = record_of(&request).await;
        let reply = place.proxy.treat(record, 0, Treatment::HoldReply);
        let sent = Instant::now();
        let late = async { slow.send(&request).await };
        let meanwhile = async {
            wait_until(|| reply.arrived() && sent.elapsed() > LEASE + LEASE / 10).await;
            // When another process executes meanwhile, which it can once the record has expired.
            let expired = ttl == LEASE;
            if expired {
                place.until_free(record).await;
                other.retry(&request).await.assert_charge(1);
            }
            reply.let_go();
            expired
        };

        // Then the late request starts no handler, and its client is asked to retry.
        let (late, expired) = tokio::join!(late, meanwhile);
        late.assert_problem(503, "overloaded");
        assert_eq!(handler.starts(), usize::from(expired));

        // And it gave back what was its own: the retry executes.
        if !expired {
            other.retry(&request).await.assert_charge(1);
        }
    }
}

/// Case A20.
async fn duplicates_follow_an_execution_of_their_process_past_the_expiry_of_its_record(
    place: &Place,
) {
    const SECOND: Duration = Duration::from_secs(1);
    for on_crash in [OnCrash::Refuse, OnCrash::Retry] {
        // Given an execution whose renewals do not arrive, so that its record has expired.
        let policy = Policy::new().lease(SECOND).ttl(SECOND).on_crash(on_crash);
        let handler = CountingHandler::new();
        let service = place.behind_proxy(&policy, &handler).await;
        let request = TestRequest::payment(&format!("{on_crash:?}"));
        let record = record_of(&request).await;
        handler.close_gate();
        let first = async { service.send(&request).await };
        let duplicate = async {
            handler.started(1).await;
            place.cut_off(true);
            place.until_free(record).await;
            place.cut_off(false);

            // When a duplicate arrives, then it waits and executes nothing.
            let ending = async {
                wait_until(|| waiters(&service.engine) == 1).await;
                assert_eq!(handler.starts(), 1);
                assert!(place.record(record).await.is_none(), "no acquire was sent");
                handler.open_gate();
            };
            tokio::join!(service.send(&request), ending).0
        };
        let (first, duplicate) = tokio::join!(first, duplicate);
        if place.forgets_expired() {
            // Nothing is left that could take the outcome, and the key is free.
            first.assert_problem(409, "outcome_unknown");
        } else {
            first.assert_charge(1);
            duplicate.assert_replay_of_charge(1);
            assert_eq!(handler.starts(), 1);
        }
    }
}
