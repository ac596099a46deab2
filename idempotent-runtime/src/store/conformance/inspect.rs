//! What [`Store::get`](crate::store::Store::get) returns, and that it changes nothing.

use std::sync::Arc;

use super::{
    Subject,
    toolbox::{
        FINGERPRINT, LEASE, TTL, abandon, acquire, assert_unknown, attempt, complete, completed,
        get, key, lapsed, outcome_with, release, renew,
    },
};
use crate::store::record::{Outcome, RecordState, Write};

/// Inspection shows the record as it is: fingerprint, attempt, state and time until it expires.
pub async fn get_shows_the_record(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    subject.advance(subject.ticks(4)).await;
    let record = get(store, key(1)).await.expect("in flight");
    assert_eq!((record.fingerprint, record.attempt), (FINGERPRINT, 1));
    let RecordState::InFlight { remaining } = record.state else {
        panic!("in flight")
    };
    assert!(
        remaining <= subject.ticks(6) && remaining > subject.ticks(4),
        "{remaining:?} of the lease are left"
    );
    let expires_in = record.expires_in;
    assert!(
        expires_in <= subject.ticks(106) && expires_in > subject.ticks(104),
        "expires in {expires_in:?}"
    );

    assert_eq!(
        complete(store, &owner, &outcome_with("done")).await,
        Write::Applied
    );
    subject.advance(subject.ticks(10)).await;
    let record = get(store, key(1)).await.expect("completed");
    assert_eq!((record.fingerprint, record.attempt), (FINGERPRINT, 1));
    assert_eq!(record.state, RecordState::Completed(outcome_with("done")));
    let expires_in = record.expires_in;
    assert!(
        expires_in <= subject.ticks(90) && expires_in > subject.ticks(88),
        "expires in {expires_in:?}"
    );
}

/// Inspection shows a lapsed lease, with nothing left of it.
pub async fn get_shows_a_lapsed_lease(subject: Arc<Subject>) {
    lapsed(&subject, key(1)).await;
    let record = get(subject.store(), key(1))
        .await
        .expect("the record stays");
    assert_eq!(
        record.state,
        RecordState::InFlight {
            remaining: subject.ticks(0)
        }
    );
}

/// Inspection shows no record that is absent or has expired, purged or not.
pub async fn get_hides_what_expired(subject: Arc<Subject>) {
    let store = subject.store();
    assert!(get(store, key(9)).await.is_none(), "absent");
    attempt(&acquire(store, &subject.claim(key(1))).await);
    completed(&subject, key(2), &outcome_with("done")).await;
    completed(&subject, key(3), &Outcome::Tombstone).await;
    subject.advance(subject.ticks(LEASE + TTL + 1)).await;
    for n in 1..=3 {
        assert!(get(store, key(n)).await.is_none(), "key {n} has expired");
    }
}

/// Inspection changes nothing: it neither renews a lease nor moves an expiry.
pub async fn get_changes_nothing(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    completed(&subject, key(2), &outcome_with("done")).await;
    for _ in 0..11 {
        get(store, key(1)).await.expect("in flight");
        get(store, key(2)).await.expect("completed");
        subject.advance(subject.ticks(9)).await;
    }
    assert_unknown(&acquire(store, &subject.claim(key(1))).await);
    subject.advance(subject.ticks(2)).await;
    assert!(get(store, key(2)).await.is_none());
}

/// Inspection sees every operation that was acknowledged before it was sent, by whichever handle. The next secret of a
/// rotation relies on it, and so does whoever waits in another process.
pub async fn get_sees_what_another_handle_was_told(subject: Arc<Subject>) {
    let (one, other) = (subject.store(), subject.second_handle().await);
    let other = &*other;
    for (writer, reader) in [(one, other), (other, one)] {
        for n in 1..=20 {
            let claim = subject.claim(key(n));
            assert!(get(reader, key(n)).await.is_none(), "key {n} is new");
            attempt(&acquire(writer, &claim).await);
            let record = get(reader, key(n)).await.expect("acquired");
            let in_flight = matches!(
                record.state,
                RecordState::InFlight { remaining } if !remaining.is_zero()
            );
            assert!(in_flight, "key {n} is in flight, not {:?}", record.state);
            assert_eq!(abandon(writer, &claim).await, Write::Applied);
            let abandoned = get(reader, key(n)).await.expect("abandoned").state;
            let remaining = subject.ticks(0);
            assert_eq!(abandoned, RecordState::InFlight { remaining });
            assert_eq!(renew(writer, &claim).await, Write::Applied);
            let renewed = get(reader, key(n)).await.expect("renewed").state;
            assert_ne!(renewed, RecordState::InFlight { remaining }, "key {n}");
            if n % 2 == 0 {
                let done = outcome_with("done");
                assert_eq!(complete(writer, &claim, &done).await, Write::Applied);
                let stored = get(reader, key(n)).await.expect("completed").state;
                assert_eq!(stored, RecordState::Completed(done));
            } else {
                assert_eq!(release(writer, &claim).await, Write::Applied);
                assert!(get(reader, key(n)).await.is_none(), "key {n} was released");
            }
        }
        subject.advance(subject.ticks(TTL + 1)).await;
    }
}
