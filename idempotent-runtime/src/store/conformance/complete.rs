//! One outcome per record, stored byte for byte.

use std::sync::Arc;

use super::{
    Subject,
    toolbox::{
        LEASE, TTL, acquire, assert_unknown, attempt, complete, completed, get, key, lapsed,
        outcome_with, response, snapshot,
    },
};
use crate::store::{
    record::{Acquisition, Outcome, RecordState, Write},
    token::TraceId,
};

/// Outcomes come back byte for byte: empty, large and binary bodies, repeated headers, statuses of every class.
pub async fn an_outcome_is_kept_byte_for_byte(subject: Arc<Subject>) {
    let binary: Vec<u8> = (0..=255).cycle().take(4 << 10).collect();
    let large: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
    let outcomes = [
        response(204, &[], b""),
        response(
            200,
            &[("content-type", "application/octet-stream")],
            &binary,
        ),
        response(
            201,
            &[
                ("location", "/a"),
                ("x-many", "1"),
                ("x-many", ""),
                ("x-many", "1"),
            ],
            b"{}",
        ),
        response(409, &[], "näin käy".as_bytes()),
        response(500, &[("content-type", "text/plain")], b"\0\r\n\0"),
        response(200, &[], &large),
    ];
    for (n, outcome) in (1..).zip(outcomes.map(Outcome::Response)) {
        completed(&subject, key(n), &outcome).await;
        let replayed = acquire(subject.store(), &subject.claim(key(n))).await;
        assert!(
            replayed == Acquisition::Completed(outcome.clone()),
            "outcome {n} is replayed unchanged"
        );
        let record = get(subject.store(), key(n)).await.expect("the record");
        assert!(
            record.state == RecordState::Completed(outcome),
            "outcome {n} is returned by get unchanged"
        );
    }
}

/// The reply to a completion may be lost: repeated with its token and outcome it is applied, and the ttl still counts
/// from the first completion.
pub async fn a_repeated_completion_is_applied_and_changes_nothing(subject: Arc<Subject>) {
    let store = subject.store();
    for (n, outcome) in [(1, outcome_with("done")), (2, Outcome::Tombstone)] {
        let owner = completed(&subject, key(n), &outcome).await;
        let before = snapshot(store, key(n)).await;
        subject.advance(subject.ticks(10)).await;
        for _ in 0..3 {
            assert_eq!(complete(store, &owner, &outcome).await, Write::Applied);
        }
        assert_eq!(snapshot(store, key(n)).await, before);
        let expires_in = get(store, key(n)).await.expect("completed").expires_in;
        assert!(
            expires_in <= subject.ticks(TTL - 10),
            "expires in {expires_in:?}"
        );
    }
}

/// A record has one outcome: a second one is fenced, even from the token that stored the first.
pub async fn a_second_outcome_is_fenced(subject: Arc<Subject>) {
    let store = subject.store();
    let outcomes = [
        outcome_with("first"),
        outcome_with("second"),
        Outcome::Tombstone,
    ];
    for (n, first) in (1..).zip(&outcomes) {
        let owner = completed(&subject, key(n), first).await;
        for second in outcomes.iter().filter(|second| *second != first) {
            assert_eq!(complete(store, &owner, second).await, Write::Fenced);
            let replayed = acquire(store, &subject.claim(key(n))).await;
            assert_eq!(replayed, Acquisition::Completed(first.clone()));
        }
    }
}

/// The token fences, not the time: a completion after the lease lapsed is applied.
pub async fn a_late_completion_by_the_current_token_is_applied(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = lapsed(&subject, key(1)).await;
    assert_unknown(&acquire(store, &subject.claim(key(1))).await);
    assert_eq!(
        complete(store, &owner, &outcome_with("late")).await,
        Write::Applied
    );
    let again = acquire(store, &subject.claim(key(1)).take_over(owner.token)).await;
    assert_eq!(again, Acquisition::Completed(outcome_with("late")));
}

/// A completion after a take-over is fenced, whether the new owner has completed or not.
pub async fn a_late_completion_after_a_take_over_is_fenced(subject: Arc<Subject>) {
    let store = subject.store();
    let old = lapsed(&subject, key(1)).await;
    let new = subject.claim(key(1)).take_over(old.token);
    attempt(&acquire(store, &new).await);
    assert_eq!(
        complete(store, &old, &outcome_with("old")).await,
        Write::Fenced
    );
    assert_eq!(
        complete(store, &new, &outcome_with("new")).await,
        Write::Applied
    );
    assert_eq!(
        complete(store, &old, &outcome_with("old")).await,
        Write::Fenced
    );
    assert_eq!(
        complete(store, &old, &outcome_with("new")).await,
        Write::Fenced
    );
    assert_eq!(
        acquire(store, &subject.claim(key(1))).await,
        Acquisition::Completed(outcome_with("new"))
    );
}

/// A completion after the record expired is applied if the row is still there, and answered with missing if it is not.
/// It never creates a row.
pub async fn a_completion_after_the_expiry_is_applied_or_missing(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    subject.advance(subject.ticks(LEASE + TTL + 1)).await;
    let replayed = match complete(store, &owner, &outcome_with("very late")).await {
        Write::Applied => Acquisition::Completed(outcome_with("very late")),
        Write::Missing => Acquisition::Acquired { attempt: 1 },
        Write::Fenced => panic!("the token is current as long as the row is there"),
    };
    assert_eq!(acquire(store, &subject.claim(key(1))).await, replayed);
}

/// The record keeps the trace id of its newest lease, also when it is completed.
pub async fn the_trace_id_of_the_newest_lease_is_kept(subject: Arc<Subject>) {
    let store = subject.store();
    let [first, second] = [1, 0xfe].map(|byte| TraceId::from_bytes([byte; 16]));
    let stored = async |n| get(store, key(n)).await.expect("the record").trace_id;

    let owner = subject.claim(key(1)).trace_id(first);
    attempt(&acquire(store, &owner).await);
    assert_eq!(stored(1).await, first);
    subject.advance(subject.ticks(LEASE + 1)).await;
    let next = subject
        .claim(key(1))
        .take_over(owner.token)
        .trace_id(second);
    attempt(&acquire(store, &next).await);
    assert_eq!(stored(1).await, second);
    assert_eq!(
        complete(store, &next, &outcome_with("done")).await,
        Write::Applied
    );
    assert_eq!(stored(1).await, second);

    completed(&subject, key(2), &outcome_with("untraced")).await;
    assert_eq!(stored(2).await, None);
}
