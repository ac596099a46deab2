//! Giving a key back when nothing was executed.

use std::sync::Arc;

use super::{
    Subject,
    toolbox::{
        OTHER_FINGERPRINT, abandon, acquire, attempt, complete, completed, get, key, lapsed,
        outcome_with, release, renew,
    },
};
use crate::store::record::{Acquisition, Claim, Outcome, Write};

/// A released key is like a new one, for any request.
pub async fn a_released_key_is_new(subject: Arc<Subject>) {
    let store = subject.store();
    for _ in 0..3 {
        let owner = subject.claim(key(1));
        assert_eq!(
            acquire(store, &owner).await,
            Acquisition::Acquired { attempt: 1 }
        );
        assert_eq!(release(store, &owner).await, Write::Applied);
        assert!(get(store, key(1)).await.is_none());
    }
    let other = Claim {
        fingerprint: OTHER_FINGERPRINT,
        ..subject.claim(key(1))
    };
    assert_eq!(
        acquire(store, &other).await,
        Acquisition::Acquired { attempt: 1 }
    );
}

/// After a release every write is answered with missing.
pub async fn a_released_record_is_missing(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    assert_eq!(release(store, &owner).await, Write::Applied);
    assert_eq!(release(store, &owner).await, Write::Missing);
    assert_eq!(renew(store, &owner).await, Write::Missing);
    assert_eq!(
        complete(store, &owner, &outcome_with("done")).await,
        Write::Missing
    );
    assert_eq!(abandon(store, &owner).await, Write::Missing);
    assert!(get(store, key(1)).await.is_none());
}

/// The reply to a release may be lost: repeated after another claim acquired the key it frees nothing.
pub async fn a_repeated_release_does_not_free_the_next_lease(subject: Arc<Subject>) {
    let store = subject.store();
    let old = subject.claim(key(1));
    attempt(&acquire(store, &old).await);
    assert_eq!(release(store, &old).await, Write::Applied);
    let new = subject.claim(key(1));
    attempt(&acquire(store, &new).await);
    assert_eq!(release(store, &old).await, Write::Fenced);
    assert_eq!(
        complete(store, &new, &outcome_with("done")).await,
        Write::Applied
    );
}

/// A late release is applied as long as nobody took over.
pub async fn a_late_release_by_the_current_token_is_applied(subject: Arc<Subject>) {
    let owner = lapsed(&subject, key(1)).await;
    assert_eq!(release(subject.store(), &owner).await, Write::Applied);
    let next = acquire(subject.store(), &subject.claim(key(1))).await;
    assert_eq!(next, Acquisition::Acquired { attempt: 1 });
}

/// An outcome cannot be released, not even by its own token.
pub async fn a_completed_record_is_not_released(subject: Arc<Subject>) {
    for (n, outcome) in [(1, outcome_with("done")), (2, Outcome::Tombstone)] {
        let owner = completed(&subject, key(n), &outcome).await;
        assert_eq!(release(subject.store(), &owner).await, Write::Fenced);
        let again = acquire(subject.store(), &subject.claim(key(n))).await;
        assert_eq!(again, Acquisition::Completed(outcome));
    }
}
