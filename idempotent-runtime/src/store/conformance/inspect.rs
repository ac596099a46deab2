//! What [`Store::get`](crate::store::Store::get) returns, and that it changes nothing.

use std::sync::Arc;

use super::{
    Subject,
    toolbox::{
        FINGERPRINT, LEASE, TTL, acquire, assert_unknown, attempt, complete, completed, get, key,
        lapsed, outcome_with,
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
