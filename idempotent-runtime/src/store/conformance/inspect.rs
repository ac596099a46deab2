//! What [`Store::get`](crate::store::Store::get) shows, and that looking changes nothing.

use std::sync::Arc;

use super::{
    Harness,
    toolbox::{
        FINGERPRINT, LEASE, TTL, acquire, answer, attempt, claim, complete, completed, get, key,
        lapsed, ticks,
    },
};
use crate::store::{Acquisition, Outcome, RecordState, Write};

/// Inspection shows the record as it is: what it asks for, its attempt, its state and its time left.
pub async fn get_shows_the_record<H: Harness>(harness: Arc<H>) {
    let store = harness.store();
    let owner = claim::<H>(key(1));
    attempt(&acquire(store, &owner).await);
    harness.advance(ticks::<H>(4)).await;
    let record = get(store, key(1)).await.expect("in flight");
    assert_eq!((record.fingerprint, record.attempt), (FINGERPRINT, 1));
    let RecordState::InFlight { remaining } = record.state else {
        panic!("in flight")
    };
    assert!(
        remaining <= ticks::<H>(6) && remaining > ticks::<H>(4),
        "{remaining:?} of the lease are left"
    );
    let expires_in = record.expires_in;
    assert!(
        expires_in <= ticks::<H>(106) && expires_in > ticks::<H>(104),
        "expires in {expires_in:?}"
    );

    assert_eq!(
        complete(store, &owner, &answer("done")).await,
        Write::Applied
    );
    harness.advance(ticks::<H>(10)).await;
    let record = get(store, key(1)).await.expect("completed");
    assert_eq!((record.fingerprint, record.attempt), (FINGERPRINT, 1));
    assert_eq!(record.state, RecordState::Completed(answer("done")));
    let expires_in = record.expires_in;
    assert!(
        expires_in <= ticks::<H>(90) && expires_in > ticks::<H>(88),
        "expires in {expires_in:?}"
    );
}

/// Inspection shows a lapsed lease, with nothing left of it.
pub async fn get_shows_a_lapsed_lease<H: Harness>(harness: Arc<H>) {
    lapsed(&*harness, key(1)).await;
    let record = get(harness.store(), key(1))
        .await
        .expect("the record stays");
    assert_eq!(
        record.state,
        RecordState::InFlight {
            remaining: ticks::<H>(0)
        }
    );
}

/// Inspection hides what is absent and what has expired, purged or not.
pub async fn get_hides_what_expired<H: Harness>(harness: Arc<H>) {
    let store = harness.store();
    assert!(get(store, key(9)).await.is_none(), "absent");
    attempt(&acquire(store, &claim::<H>(key(1))).await);
    completed(&*harness, key(2), &answer("done")).await;
    completed(&*harness, key(3), &Outcome::Tombstone).await;
    harness.advance(ticks::<H>(LEASE + TTL + 1)).await;
    for n in 1..=3 {
        assert!(get(store, key(n)).await.is_none(), "key {n} has expired");
    }
}

/// Inspection changes nothing: it neither renews a lease nor prolongs a retention.
pub async fn get_changes_nothing<H: Harness>(harness: Arc<H>) {
    let store = harness.store();
    let owner = claim::<H>(key(1));
    attempt(&acquire(store, &owner).await);
    completed(&*harness, key(2), &answer("done")).await;
    for _ in 0..11 {
        get(store, key(1)).await.expect("in flight");
        get(store, key(2)).await.expect("completed");
        harness.advance(ticks::<H>(9)).await;
    }
    assert_eq!(
        acquire(store, &claim::<H>(key(1))).await,
        Acquisition::Unknown
    );
    harness.advance(ticks::<H>(2)).await;
    assert!(get(store, key(2)).await.is_none());
}
