//! Keeping and losing a lease: renew, abandon, and the fence around every write.

use std::sync::Arc;

use super::{
    Subject,
    toolbox::{
        FINGERPRINT, LEASE, TTL, abandon, acquire, assert_in_flight, assert_unknown, attempt,
        complete, completed, get, key, lapsed, outcome_with, purge_all, release, renew, snapshot,
        with_another_token,
    },
};
use crate::{
    scope::StoreKey,
    store::{
        record::{Acquisition, Claim, Outcome, RecordState, Write},
        token::Token,
    },
};

/// A renewed lease lasts a whole lease from the renewal.
pub async fn a_renewal_extends_the_lease(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    for _ in 0..4 {
        subject.advance(subject.ticks(LEASE - 2)).await;
        assert_in_flight(&acquire(store, &subject.claim(key(1)).take_over(owner.token)).await);
        assert_eq!(renew(store, &owner).await, Write::Applied);
    }
}

/// A long execution outlives the expiry that its acquire set: renewals push it forward.
pub async fn a_renewal_pushes_the_expiry(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    let mut passed = subject.ticks(0);
    while passed <= subject.ticks(LEASE + TTL) {
        subject.advance(subject.ticks(LEASE - 2)).await;
        passed += subject.ticks(LEASE - 2);
        assert_eq!(
            renew(store, &owner).await,
            Write::Applied,
            "after {passed:?}"
        );
    }
    purge_all(store).await;
    assert_in_flight(&acquire(store, &subject.claim(key(1)).take_over(owner.token)).await);
    let expires_in = get(store, key(1)).await.expect("a live lease").expires_in;
    assert!(
        expires_in > subject.ticks(LEASE + TTL - 2),
        "expires in {expires_in:?}"
    );
    assert_eq!(
        complete(store, &owner, &outcome_with("done")).await,
        Write::Applied
    );
}

/// A late renewal is applied as long as unknown took over.
pub async fn a_late_renewal_by_the_current_token_is_applied(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = lapsed(&subject, key(1)).await;
    assert_unknown(&acquire(store, &subject.claim(key(1))).await);
    assert_eq!(renew(store, &owner).await, Write::Applied);
    assert_in_flight(&acquire(store, &subject.claim(key(1)).take_over(owner.token)).await);
}

/// A completed record has no lease to renew, and its expiry stays where it was.
pub async fn a_completed_record_is_not_renewed(subject: Arc<Subject>) {
    let store = subject.store();
    for (n, outcome) in [(1, outcome_with("done")), (2, Outcome::Tombstone)] {
        let owner = completed(&subject, key(n), &outcome).await;
        subject.advance(subject.ticks(10)).await;
        assert_eq!(renew(store, &owner).await, Write::Fenced);
        assert_eq!(
            acquire(store, &subject.claim(key(n))).await,
            Acquisition::Completed(outcome)
        );
        let expires_in = get(store, key(n)).await.expect("completed").expires_in;
        assert!(
            expires_in <= subject.ticks(TTL - 10),
            "expires in {expires_in:?}"
        );
    }
}

/// Abandoning ends the lease at once and keeps the record: the outcome is unknown.
pub async fn an_abandoned_lease_has_lapsed(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    assert_eq!(abandon(store, &owner).await, Write::Applied);

    assert_unknown(&acquire(store, &subject.claim(key(1))).await);
    let record = get(store, key(1)).await.expect("the record stays");
    assert_eq!(
        record.state,
        RecordState::InFlight {
            remaining: subject.ticks(0)
        }
    );
    let next = subject.claim(key(1)).take_over(owner.token);
    assert_eq!(
        acquire(store, &next).await,
        Acquisition::Acquired { attempt: 2 }
    );
}

/// Abandoning may be repeated, and never revives the lease.
pub async fn a_repeated_abandon_is_applied(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    for _ in 0..3 {
        assert_eq!(abandon(store, &owner).await, Write::Applied);
        assert_unknown(&acquire(store, &subject.claim(key(1))).await);
        subject.advance(subject.ticks(1)).await;
    }
}

/// An execution that was abandoned and still ends may store its outcome.
pub async fn an_abandoned_execution_may_still_complete(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    assert_eq!(abandon(store, &owner).await, Write::Applied);
    assert_eq!(
        complete(store, &owner, &outcome_with("late")).await,
        Write::Applied
    );
    assert_eq!(
        acquire(store, &subject.claim(key(1))).await,
        Acquisition::Completed(outcome_with("late"))
    );
}

/// An outcome cannot be abandoned.
pub async fn a_completed_record_is_not_abandoned(subject: Arc<Subject>) {
    let store = subject.store();
    for (n, outcome) in [(1, outcome_with("done")), (2, Outcome::Tombstone)] {
        let owner = completed(&subject, key(n), &outcome).await;
        assert_eq!(abandon(store, &owner).await, Write::Fenced);
        let again = acquire(store, &subject.claim(key(n)).take_over(owner.token)).await;
        assert_eq!(again, Acquisition::Completed(outcome));
    }
}

/// Renewing with another token is fenced in every state, and changes nothing.
pub async fn a_renewal_with_another_token_is_fenced(subject: Arc<Subject>) {
    for (name, owner) in every_state(&subject).await {
        let before = snapshot(subject.store(), owner.key).await;
        let write = subject
            .store()
            .renew(&with_another_token(&owner))
            .await
            .expect("renew");
        assert_eq!(write, Write::Fenced, "{name}");
        assert_eq!(snapshot(subject.store(), owner.key).await, before, "{name}");
    }
    // The lease that had lapsed is not live again.
    assert_unknown(&acquire(subject.store(), &subject.claim(LAPSED)).await);
}

/// Completing with another token is fenced in every state, and changes nothing.
pub async fn a_completion_with_another_token_is_fenced(subject: Arc<Subject>) {
    for (name, owner) in every_state(&subject).await {
        let before = snapshot(subject.store(), owner.key).await;
        // Also with the stored outcome: only the owner may repeat a completion.
        for outcome in [
            outcome_with("stale"),
            outcome_with("done"),
            Outcome::Tombstone,
        ] {
            let write = subject
                .store()
                .complete(&with_another_token(&owner), &outcome)
                .await
                .expect("complete");
            assert_eq!(write, Write::Fenced, "{name}");
        }
        assert_eq!(snapshot(subject.store(), owner.key).await, before, "{name}");
    }
}

/// Releasing with another token is fenced in every state, and removes nothing.
pub async fn a_release_with_another_token_is_fenced(subject: Arc<Subject>) {
    for (name, owner) in every_state(&subject).await {
        let before = snapshot(subject.store(), owner.key).await;
        let write = subject
            .store()
            .release(&owner.key, &Token::random())
            .await
            .expect("release");
        assert_eq!(write, Write::Fenced, "{name}");
        assert_eq!(snapshot(subject.store(), owner.key).await, before, "{name}");
    }
}

/// Abandoning with another token is fenced in every state, and ends no lease.
pub async fn an_abandon_with_another_token_is_fenced(subject: Arc<Subject>) {
    let states = every_state(&subject).await;
    let live = states[1].1.token;
    for (name, owner) in states {
        let before = snapshot(subject.store(), owner.key).await;
        let write = subject
            .store()
            .abandon(&owner.key, &Token::random())
            .await
            .expect("abandon");
        assert_eq!(write, Write::Fenced, "{name}");
        assert_eq!(snapshot(subject.store(), owner.key).await, before, "{name}");
    }
    assert_in_flight(&acquire(subject.store(), &subject.claim(LIVE).take_over(live)).await);
}

/// After a take-over every write with the old token is fenced; the new owner completes, and its outcome stays.
pub async fn a_take_over_fences_every_write_of_the_old_token(subject: Arc<Subject>) {
    let store = subject.store();
    let old = lapsed(&subject, key(1)).await;
    let new = subject.claim(key(1)).take_over(old.token);
    assert_eq!(
        acquire(store, &new).await,
        Acquisition::Acquired { attempt: 2 }
    );
    for outcome in [None, Some(outcome_with("new"))] {
        if let Some(outcome) = &outcome {
            assert_eq!(complete(store, &new, outcome).await, Write::Applied);
        }
        assert_eq!(renew(store, &old).await, Write::Fenced);
        assert_eq!(
            complete(store, &old, &outcome_with("old")).await,
            Write::Fenced
        );
        assert_eq!(release(store, &old).await, Write::Fenced);
        assert_eq!(abandon(store, &old).await, Write::Fenced);
        assert_eq!(
            snapshot(store, key(1)).await,
            Some((FINGERPRINT, 2, outcome))
        );
    }
}

/// A write without a record is answered with missing, and creates none.
pub async fn a_write_to_a_missing_record_makes_none(subject: Arc<Subject>) {
    let store = subject.store();
    let unknown = subject.claim(key(1));
    assert_eq!(renew(store, &unknown).await, Write::Missing);
    assert_eq!(
        complete(store, &unknown, &outcome_with("lost")).await,
        Write::Missing
    );
    assert_eq!(
        complete(store, &unknown, &Outcome::Tombstone).await,
        Write::Missing
    );
    assert_eq!(release(store, &unknown).await, Write::Missing);
    assert_eq!(abandon(store, &unknown).await, Write::Missing);
    assert!(get(store, key(1)).await.is_none());
    assert_eq!(
        acquire(store, &subject.claim(key(1))).await,
        Acquisition::Acquired { attempt: 1 }
    );
}

const LAPSED: StoreKey = key(1);
const LIVE: StoreKey = key(2);

/// One record in each state, with the claim that owns it.
async fn every_state(subject: &Subject) -> [(&'static str, Claim); 4] {
    let lapsed = lapsed(subject, LAPSED).await;
    let live = subject.claim(LIVE);
    attempt(&acquire(subject.store(), &live).await);
    let done = completed(subject, key(3), &outcome_with("done")).await;
    let tombstone = completed(subject, key(4), &Outcome::Tombstone).await;
    [
        ("lapsed", lapsed),
        ("live", live),
        ("completed", done),
        ("tombstone", tombstone),
    ]
}
