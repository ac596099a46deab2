//! How long records live.

use std::sync::Arc;

use super::{
    Subject,
    toolbox::{
        LEASE, OTHER_FINGERPRINT, TTL, acquire, assert_in_flight, assert_unknown, attempt,
        complete, completed, get, key, lapsed, outcome_with, purge_all, renew, snapshot,
    },
};
use crate::{
    scope::StoreKey,
    store::record::{Acquisition, Claim, Outcome, Write},
};

/// The ttl counts from the completion, not from the acquire.
pub async fn the_ttl_counts_from_the_completion(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    subject.advance(subject.ticks(50)).await;
    assert_eq!(
        complete(store, &owner, &outcome_with("done")).await,
        Write::Applied
    );

    subject.advance(subject.ticks(TTL - 2)).await;
    assert_eq!(
        acquire(store, &subject.claim(key(1))).await,
        Acquisition::Completed(outcome_with("done"))
    );
    subject.advance(subject.ticks(3)).await;
    attempt(&acquire(store, &subject.claim(key(1))).await);
}

/// A replay is not a completion: it leaves the expiry where it was.
pub async fn a_replay_does_not_extend_the_expiry(subject: Arc<Subject>) {
    completed(&subject, key(1), &outcome_with("done")).await;
    for _ in 0..4 {
        subject.advance(subject.ticks(24)).await;
        let again = acquire(subject.store(), &subject.claim(key(1))).await;
        assert_eq!(again, Acquisition::Completed(outcome_with("done")));
    }
    subject.advance(subject.ticks(5)).await;
    attempt(&acquire(subject.store(), &subject.claim(key(1))).await);
}

/// An expired outcome is absent: another request may use the key, as attempt 2 if the row is still there and as
/// attempt 1 if it is not.
pub async fn an_expired_outcome_is_absent(subject: Arc<Subject>) {
    for (n, outcome) in [(1, outcome_with("old")), (2, Outcome::Tombstone)] {
        completed(&subject, key(n), &outcome).await;
        subject.advance(subject.ticks(TTL + 1)).await;
        reuse_expired(&subject, key(n)).await;
    }
}

/// An unknown outcome expires after lease and ttl, and not before.
pub async fn an_unknown_outcome_expires_after_lease_and_ttl(subject: Arc<Subject>) {
    attempt(&acquire(subject.store(), &subject.claim(key(1))).await);
    subject.advance(subject.ticks(LEASE + TTL - 2)).await;
    assert_unknown(&acquire(subject.store(), &subject.claim(key(1))).await);
    subject.advance(subject.ticks(3)).await;
    reuse_expired(&subject, key(1)).await;
}

/// Taking a lease over, or acquiring it again with its own token, restarts the expiry: an unknown outcome is then kept
/// as long as that of a first lease.
pub async fn every_acquire_pushes_the_expiry(subject: Arc<Subject>) {
    let store = subject.store();
    let (first, repeated) = (
        lapsed(&subject, key(1)).await,
        lapsed(&subject, key(2)).await,
    );
    subject.advance(subject.ticks(TTL - 15)).await;
    let next = subject.claim(first.key).take_over(first.token);
    assert_eq!(
        acquire(store, &next).await,
        Acquisition::Acquired { attempt: 2 }
    );
    assert_eq!(
        acquire(store, &repeated).await,
        Acquisition::Acquired { attempt: 1 }
    );
    for key in [first.key, repeated.key] {
        let expires_in = get(store, key).await.expect("in flight").expires_in;
        assert!(
            expires_in > subject.ticks(LEASE + TTL - 2),
            "expires in {expires_in:?}"
        );
    }
    // By now the expiry of the first leases has passed.
    subject.advance(subject.ticks(LEASE + TTL - 2)).await;
    purge_all(store).await;
    for key in [first.key, repeated.key] {
        let answer = acquire(store, &subject.claim(key)).await;
        assert_unknown(&answer);
    }
}

/// A renewal after the record expired gives a live lease if the row is still there, and is answered with missing if it
/// is not. It never creates a row.
pub async fn a_renewal_after_the_expiry_is_applied_or_missing(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    subject.advance(subject.ticks(LEASE + TTL + 1)).await;
    let write = renew(store, &owner).await;
    let next = acquire(store, &subject.claim(key(1)).take_over(owner.token)).await;
    match write {
        Write::Applied => assert_in_flight(&next),
        Write::Missing => assert_eq!(next, Acquisition::Acquired { attempt: 1 }),
        Write::Fenced => panic!("the token is current as long as the row is there"),
    }
}

/// When an expired record is acquired again, its former owner is fenced.
pub async fn the_owner_of_an_expired_record_is_fenced_by_the_next(subject: Arc<Subject>) {
    let store = subject.store();
    let old = subject.claim(key(1));
    attempt(&acquire(store, &old).await);
    subject.advance(subject.ticks(LEASE + TTL + 1)).await;
    let new = subject.claim(key(1));
    attempt(&acquire(store, &new).await);
    assert_eq!(renew(store, &old).await, Write::Fenced);
    assert_eq!(
        complete(store, &old, &outcome_with("old")).await,
        Write::Fenced
    );
    assert_eq!(
        complete(store, &new, &outcome_with("new")).await,
        Write::Applied
    );
    assert_eq!(
        acquire(store, &subject.claim(key(1))).await,
        Acquisition::Completed(outcome_with("new"))
    );
}

/// Uses an expired key for another request, from its acquire to its outcome.
async fn reuse_expired(subject: &Subject, key: StoreKey) {
    let store = subject.store();
    let next = Claim {
        fingerprint: OTHER_FINGERPRINT,
        ..subject.claim(key)
    };
    let number = attempt(&acquire(store, &next).await);
    assert!(number == 1 || number == 2, "attempt {number}");
    assert_eq!(
        snapshot(store, key).await,
        Some((OTHER_FINGERPRINT, number, None)),
        "nothing of the expired record is left"
    );
    assert_eq!(
        complete(store, &next, &outcome_with("new")).await,
        Write::Applied
    );
    assert_eq!(
        snapshot(store, key).await,
        Some((OTHER_FINGERPRINT, number, Some(outcome_with("new"))))
    );
}
