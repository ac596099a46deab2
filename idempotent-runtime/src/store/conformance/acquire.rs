//! Who owns the key: every answer of [`Store::acquire`](crate::store::Store::acquire) in every state.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    Subject,
    toolbox::{
        FINGERPRINT, LEASE, OTHER_FINGERPRINT, abandon, acquire, assert_in_flight, assert_unknown,
        attempt, complete, completed, get, key, lapsed, outcome_with, renew, snapshot,
    },
};
use crate::{
    scope::StoreKey,
    store::{
        error::StoreErrorKind,
        record::{Acquisition, Claim, Outcome, Write},
        token::Token,
    },
};

/// An absent record is acquired as attempt 1.
pub async fn a_new_key_is_acquired_as_the_first_attempt(subject: Arc<Subject>) {
    let first = acquire(subject.store(), &subject.claim(key(1))).await;
    assert_eq!(first, Acquisition::Acquired { attempt: 1 });
}

/// The server carried the acquire out, and its reply was lost. The store must not hide that by a repetition of its own: a
/// copy that is still on its way would claim the key after the caller has released it. The caller's repetition is answered
/// as the first would have been.
pub async fn an_acquire_whose_reply_was_lost_is_an_error_and_is_repeated_by_its_caller(
    subject: Arc<Subject>,
) {
    let claim = subject.claim(key(1));
    let Some(losing) = subject.losing_handle(&claim.key).await else {
        return;
    };
    let error = losing.acquire(&claim).await;
    let error = error.expect_err("the reply was lost");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert_eq!(
        acquire(&*losing, &claim).await,
        Acquisition::Acquired { attempt: 1 }
    );
}

/// Records are stored under their whole key: keys that differ in one byte, at any position, are different records.
pub async fn keys_that_differ_in_one_byte_are_different_records(subject: Arc<Subject>) {
    let keys: Vec<StoreKey> = (0..=32)
        .map(|position| {
            let mut bytes = [0; 32];
            if let Some(byte) = bytes.get_mut(position) {
                *byte = 1;
            }
            StoreKey::from_bytes(bytes)
        })
        .collect();
    for (n, &key) in keys.iter().enumerate() {
        completed(&subject, key, &outcome_with(&n.to_string())).await;
    }
    for (n, &key) in keys.iter().enumerate() {
        let again = acquire(subject.store(), &subject.claim(key)).await;
        assert_eq!(
            again,
            Acquisition::Completed(outcome_with(&n.to_string())),
            "key {n}"
        );
    }
}

/// A live lease is answered with the time left of it, and nothing changes.
pub async fn a_live_lease_is_answered_with_the_time_left(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    subject.advance(subject.ticks(4)).await;

    let seen = acquire(store, &subject.claim(key(1))).await;
    let Acquisition::InFlight { remaining, lease } = seen else {
        panic!("the lease is live");
    };
    assert_eq!(lease, owner.token, "the answer names the lease");
    assert!(
        remaining <= subject.ticks(6),
        "at most six ticks are left, not {remaining:?}"
    );
    assert!(
        remaining > subject.ticks(4),
        "more than four ticks are left, not {remaining:?}"
    );
    assert_eq!(snapshot(store, key(1)).await, Some((FINGERPRINT, 1, None)));
    assert_eq!(
        complete(store, &owner, &outcome_with("done")).await,
        Write::Applied
    );
}

/// A live lease is not taken over, whatever the crash policy.
pub async fn a_live_lease_is_not_taken_over(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    subject.advance(subject.ticks(LEASE - 2)).await;

    assert_in_flight(&acquire(store, &subject.claim(key(1)).take_over(owner.token)).await);
    assert_eq!(renew(store, &owner).await, Write::Applied);
}

/// The reply to an acquire may be lost: repeated with its token it is answered as before.
pub async fn a_repeated_acquire_is_acquired_with_the_same_attempt(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    for _ in 0..3 {
        assert_eq!(
            acquire(store, &owner).await,
            Acquisition::Acquired { attempt: 1 }
        );
    }
    subject.advance(subject.ticks(LEASE + 1)).await;
    let next = subject.claim(key(1)).take_over(owner.token);
    for _ in 0..3 {
        assert_eq!(
            acquire(store, &next).await,
            Acquisition::Acquired { attempt: 2 }
        );
    }
}

/// Repeating an acquire renews its lease.
pub async fn a_repeated_acquire_renews_the_lease(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    subject.advance(subject.ticks(LEASE - 2)).await;
    attempt(&acquire(store, &owner).await);
    subject.advance(subject.ticks(4)).await;
    assert_in_flight(&acquire(store, &subject.claim(key(1)).take_over(owner.token)).await);
}

/// A lapsed lease that nobody took over still belongs to its token.
pub async fn a_late_repetition_of_the_acquire_keeps_the_attempt(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = lapsed(&subject, key(1)).await;
    assert_eq!(
        acquire(store, &owner).await,
        Acquisition::Acquired { attempt: 1 }
    );
    assert_in_flight(&acquire(store, &subject.claim(key(1)).take_over(owner.token)).await);
}

/// A repeated acquire that arrives after its own completion gets the outcome, not a second lease.
pub async fn a_repeated_acquire_after_the_completion_gets_the_outcome(subject: Arc<Subject>) {
    let owner = completed(&subject, key(1), &outcome_with("done")).await;
    let again = acquire(subject.store(), &owner.clone().take_over(owner.token)).await;
    assert_eq!(again, Acquisition::Completed(outcome_with("done")));
}

/// A token whose lease was taken over is a token like any other, also for an acquire.
pub async fn a_token_that_was_fenced_out_acquires_nothing(subject: Arc<Subject>) {
    let store = subject.store();
    let old = lapsed(&subject, key(1)).await;
    let new = subject.claim(key(1)).take_over(old.token);
    assert_eq!(
        acquire(store, &new).await,
        Acquisition::Acquired { attempt: 2 }
    );

    assert_in_flight(&acquire(store, &old.clone().take_over(new.token)).await);
    assert_eq!(
        complete(store, &new, &outcome_with("new")).await,
        Write::Applied
    );
}

/// Another fingerprint is a mismatch in every state, before any other answer, and changes nothing.
pub async fn another_fingerprint_is_a_mismatch_in_every_state(subject: Arc<Subject>) {
    let store = subject.store();
    let unknown = lapsed(&subject, key(1)).await;
    let live = subject.claim(key(2));
    attempt(&acquire(store, &live).await);
    completed(&subject, key(3), &outcome_with("done")).await;
    completed(&subject, key(4), &Outcome::Tombstone).await;

    for n in 1..=4 {
        let before = snapshot(store, key(n)).await;
        for take_over in [None, Some(unknown.token), Some(live.token)] {
            let other = Claim {
                fingerprint: OTHER_FINGERPRINT,
                take_over,
                ..subject.claim(key(n))
            };
            let answer = acquire(store, &other).await;
            assert_eq!(
                answer,
                Acquisition::Mismatch {
                    fingerprint: FINGERPRINT
                },
                "key {n}, take_over {take_over:?}"
            );
        }
        assert_eq!(snapshot(store, key(n)).await, before, "key {n}");
    }
    assert_eq!(
        complete(store, &unknown, &outcome_with("late")).await,
        Write::Applied
    );
    assert_eq!(
        complete(store, &live, &outcome_with("live")).await,
        Write::Applied
    );
}

/// A completed record is answered with its outcome, again and again, and is never in flight again.
pub async fn a_completed_record_is_answered_with_its_outcome(subject: Arc<Subject>) {
    let owner = completed(&subject, key(1), &outcome_with("done")).await;
    for take_over in [None, Some(owner.token), None, Some(owner.token)] {
        let claim = Claim {
            take_over,
            ..subject.claim(key(1))
        };
        let again = acquire(subject.store(), &claim).await;
        assert_eq!(again, Acquisition::Completed(outcome_with("done")));
        subject.advance(subject.ticks(LEASE)).await;
    }
}

/// A tombstone is an outcome: it is answered as one and never executed again.
pub async fn a_tombstone_is_answered_as_a_tombstone(subject: Arc<Subject>) {
    let owner = completed(&subject, key(1), &Outcome::Tombstone).await;
    for take_over in [None, Some(owner.token)] {
        let claim = Claim {
            take_over,
            ..subject.claim(key(1))
        };
        let again = acquire(subject.store(), &claim).await;
        assert_eq!(again, Acquisition::Completed(Outcome::Tombstone));
        subject.advance(subject.ticks(LEASE + 1)).await;
    }
}

/// A lapsed lease is answered with unknown to claims that do not take over, however often they ask.
pub async fn a_lapsed_lease_is_unknown_to_a_claim_that_does_not_take_over(subject: Arc<Subject>) {
    let store = subject.store();
    let lost = lapsed(&subject, key(1)).await;
    for _ in 0..3 {
        let named = assert_unknown(&acquire(store, &subject.claim(key(1))).await);
        assert_eq!(named, lost.token, "the answer names the lapsed lease");
        subject.advance(subject.ticks(LEASE)).await;
    }
    assert_eq!(snapshot(store, key(1)).await, Some((FINGERPRINT, 1, None)));
}

/// A claim that takes over acquires a lapsed lease as the next attempt, with a live lease.
pub async fn a_lapsed_lease_is_taken_over_as_the_next_attempt(subject: Arc<Subject>) {
    let store = subject.store();
    let lost = lapsed(&subject, key(1)).await;
    let next = subject.claim(key(1)).take_over(lost.token);
    assert_eq!(
        acquire(store, &next).await,
        Acquisition::Acquired { attempt: 2 }
    );
    // Also to a claim that names the lease before.
    assert_in_flight(&acquire(store, &subject.claim(key(1)).take_over(lost.token)).await);
    assert_eq!(
        complete(store, &next, &outcome_with("second")).await,
        Write::Applied
    );
}

/// A take-over applies only to the lease that it names, and only while that lease is the record's and has lapsed.
pub async fn a_take_over_applies_to_no_other_lease(subject: Arc<Subject>) {
    let store = subject.store();
    let first = lapsed(&subject, key(1)).await;
    let stranger = subject.claim(key(1)).take_over(Token::random());
    assert_eq!(
        assert_unknown(&acquire(store, &stranger).await),
        first.token
    );
    assert_eq!(snapshot(store, key(1)).await, Some((FINGERPRINT, 1, None)));

    let second = subject.claim(key(1)).take_over(first.token);
    attempt(&acquire(store, &second).await);
    // Its reply was lost: repeated, it is the same attempt.
    assert_eq!(
        acquire(store, &second).await,
        Acquisition::Acquired { attempt: 2 }
    );
    subject.advance(subject.ticks(LEASE + 1)).await;
    // A take-over of the first lease that arrives late finds another lapsed lease, and leaves it alone.
    let late = subject.claim(key(1)).take_over(first.token);
    assert_eq!(assert_unknown(&acquire(store, &late).await), second.token);
    assert_eq!(
        complete(store, &second, &outcome_with("second")).await,
        Write::Applied
    );
}

/// The attempt number rises by one with each lease, whether the one before lapsed or was abandoned.
pub async fn attempts_rise_by_one_with_every_lease(subject: Arc<Subject>) {
    let store = subject.store();
    let mut lapsed_lease = None;
    for expected in 1..=6 {
        let next = Claim {
            take_over: lapsed_lease,
            ..subject.claim(key(1))
        };
        lapsed_lease = Some(next.token);
        assert_eq!(
            acquire(store, &next).await,
            Acquisition::Acquired { attempt: expected }
        );
        let seen = get(store, key(1)).await.map(|record| record.attempt);
        assert_eq!(seen, Some(expected), "get shows the newest attempt");
        if expected % 2 == 0 {
            assert_eq!(abandon(store, &next).await, Write::Applied);
        } else {
            subject.advance(subject.ticks(LEASE + 1)).await;
        }
    }
}

/// A dropped acquire has happened or has not, and never frees a lease. Here it repeats the acquire of a lease that an
/// execution already holds, as after a lost reply.
pub async fn an_acquire_dropped_half_way_frees_no_lease(subject: Arc<Subject>) {
    let store = subject.store();
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    poll_once(store_acquire(&subject, &owner));

    assert_in_flight(&acquire(store, &subject.claim(key(1)).take_over(owner.token)).await);
    assert_eq!(
        complete(store, &owner, &outcome_with("done")).await,
        Write::Applied
    );
}

/// All handles on the records, in whichever process, see the same records by the same clock.
pub async fn a_second_handle_sees_the_same_records_at_the_same_time(subject: Arc<Subject>) {
    let (store, second) = (subject.store(), subject.second_handle().await);
    let owner = subject.claim(key(1));
    attempt(&acquire(store, &owner).await);
    subject.advance(subject.ticks(LEASE - 2)).await;
    assert_in_flight(&acquire(&*second, &subject.claim(key(1)).take_over(owner.token)).await);

    let stale = Claim {
        token: Token::random(),
        ..owner.clone()
    };
    assert_eq!(
        complete(&*second, &stale, &outcome_with("stale")).await,
        Write::Fenced
    );
    assert_eq!(
        complete(&*second, &owner, &outcome_with("done")).await,
        Write::Applied
    );
    assert_eq!(
        acquire(store, &subject.claim(key(1))).await,
        Acquisition::Completed(outcome_with("done"))
    );

    // The other way round: a lease that lapsed lapsed for every handle.
    attempt(&acquire(&*second, &subject.claim(key(2))).await);
    subject.advance(subject.ticks(LEASE + 1)).await;
    assert_unknown(&acquire(store, &subject.claim(key(2))).await);
}

async fn store_acquire(subject: &Subject, claim: &Claim) {
    acquire(subject.store(), claim).await;
}

fn poll_once(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let (Poll::Ready(()) | Poll::Pending) = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
}
