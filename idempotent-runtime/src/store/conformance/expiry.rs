//! How long a record lives.

use std::sync::Arc;

use super::{
    Harness,
    toolbox::{
        LEASE, OTHER_FINGERPRINT, TTL, acquire, answer, attempt, claim, complete, completed, fixed,
        key, renew, ticks,
    },
};
use crate::{
    scope::StoreKey,
    store::{Acquisition, Claim, Outcome, Write},
};

/// The retention counts from the completion, not from the acquire.
pub async fn the_ttl_counts_from_the_completion<H: Harness>(harness: Arc<H>) {
    let store = harness.store();
    let owner = claim::<H>(key(1));
    attempt(&acquire(store, &owner).await);
    harness.advance(ticks::<H>(50)).await;
    assert_eq!(
        complete(store, &owner, &answer("done")).await,
        Write::Applied
    );

    harness.advance(ticks::<H>(TTL - 2)).await;
    assert_eq!(
        acquire(store, &claim::<H>(key(1))).await,
        Acquisition::Completed(answer("done"))
    );
    harness.advance(ticks::<H>(3)).await;
    attempt(&acquire(store, &claim::<H>(key(1))).await);
}

/// A replay is not a completion: it does not prolong the retention.
pub async fn a_replay_does_not_prolong_the_retention<H: Harness>(harness: Arc<H>) {
    completed(&*harness, key(1), &answer("done")).await;
    for _ in 0..4 {
        harness.advance(ticks::<H>(24)).await;
        let again = acquire(harness.store(), &claim::<H>(key(1))).await;
        assert_eq!(again, Acquisition::Completed(answer("done")));
    }
    harness.advance(ticks::<H>(5)).await;
    attempt(&acquire(harness.store(), &claim::<H>(key(1))).await);
}

/// An expired outcome is absent: another request may use the key, as attempt 2 where the row was still
/// there and as attempt 1 where it was not.
pub async fn an_expired_outcome_is_absent<H: Harness>(harness: Arc<H>) {
    for (n, outcome) in [(1, answer("old")), (2, Outcome::Tombstone)] {
        completed(&*harness, key(n), &outcome).await;
        harness.advance(ticks::<H>(TTL + 1)).await;
        reuse_expired(&*harness, key(n)).await;
    }
}

/// An unknown outcome is forgotten after lease and ttl, and not before.
pub async fn an_unknown_outcome_expires_after_lease_and_ttl<H: Harness>(harness: Arc<H>) {
    attempt(&acquire(harness.store(), &claim::<H>(key(1))).await);
    harness.advance(ticks::<H>(LEASE + TTL - 2)).await;
    assert_eq!(
        acquire(harness.store(), &claim::<H>(key(1))).await,
        Acquisition::Unknown
    );
    harness.advance(ticks::<H>(3)).await;
    reuse_expired(&*harness, key(1)).await;
}

/// Whoever owned a record before it expired and was acquired anew owns nothing any more.
pub async fn the_owner_of_an_expired_record_is_fenced_by_the_next<H: Harness>(harness: Arc<H>) {
    let store = harness.store();
    let old = claim::<H>(key(1));
    attempt(&acquire(store, &old).await);
    harness.advance(ticks::<H>(LEASE + TTL + 1)).await;
    let new = claim::<H>(key(1));
    attempt(&acquire(store, &new).await);
    assert_eq!(renew(store, &old).await, Write::Fenced);
    assert_eq!(complete(store, &old, &answer("old")).await, Write::Fenced);
    assert_eq!(complete(store, &new, &answer("new")).await, Write::Applied);
    assert_eq!(
        acquire(store, &claim::<H>(key(1))).await,
        Acquisition::Completed(answer("new"))
    );
}

/// An expired key under a new request, from the acquire to its own outcome.
async fn reuse_expired<H: Harness>(harness: &H, key: StoreKey) {
    let store = harness.store();
    let next = Claim {
        fingerprint: OTHER_FINGERPRINT,
        ..claim::<H>(key)
    };
    let number = attempt(&acquire(store, &next).await);
    assert!(number == 1 || number == 2, "attempt {number}");
    assert_eq!(
        fixed(store, key).await,
        Some((OTHER_FINGERPRINT, number, None)),
        "nothing old is left"
    );
    assert_eq!(complete(store, &next, &answer("new")).await, Write::Applied);
    assert_eq!(
        fixed(store, key).await,
        Some((OTHER_FINGERPRINT, number, Some(answer("new"))))
    );
}
