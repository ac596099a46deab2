//! Rules that only concurrent operations can break.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::yield_now;

use super::{
    Subject,
    arena::{Arena, Contender, Late, ROUNDS, rounds, winners},
    toolbox::{
        acquire, assert_in_flight, assert_unknown, attempt, complete, get, key, outcome_with,
        purge, release, renew, snapshot,
    },
};
use crate::store::token::Token;
use crate::store::{
    erased::ErasedStore,
    record::{Acquisition, Claim, Write},
};

/// Of 64 claims for a new key one acquires it, and all others find it in flight.
pub async fn a_new_key_has_one_winner(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let claim = || arena.claim(key);
        assert_eq!(winners(&arena.claims(claim).await), [1]);
    }
}

/// Of 64 claims that take over a lapsed lease one acquires it, as the next attempt.
pub async fn a_take_over_has_one_winner(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let old = arena.abandoned(key).await;
        let claim = || arena.claim(key).take_over(old.token);
        assert_eq!(winners(&arena.claims(claim).await), [2]);
    }
}

/// Of 64 claims that do not take over a lapsed lease none acquires it.
pub async fn an_unknown_outcome_has_no_winner(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        arena.abandoned(key).await;
        for answer in arena.claims(|| arena.claim(key)).await {
            assert_unknown(&answer);
        }
    }
}

/// One claim repeated 64 times at once is answered 64 times with the same attempt.
pub async fn repetitions_of_one_acquire_share_its_lease(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let one = arena.claim(key);
        for answer in arena.claims(|| one.clone()).await {
            assert_eq!(answer, Acquisition::Acquired { attempt: 1 });
        }
    }
}

/// 64 claims for as many keys are all acquired.
pub async fn different_keys_do_not_contend(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    let claims = |contender: Contender| async move {
        acquire(contender.store(), &contender.claim(key(contender.number))).await
    };
    for answer in arena.race(claims).await {
        assert_eq!(answer, Acquisition::Acquired { attempt: 1 });
    }
}

/// Of 64 claims for an outcome that is just expiring one acquires the key; until then, all get the old outcome.
pub async fn an_expiring_outcome_has_one_successor(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let store = arena.store();
        let old = Claim {
            ttl: Duration::from_millis(5),
            ..arena.claim(key)
        };
        attempt(&acquire(store, &old).await);
        assert_eq!(
            complete(store, &old, &outcome_with("old")).await,
            Write::Applied
        );
        let claims = |contender: Contender| async move {
            claim_until_expired(contender.store(), &contender.claim(key)).await
        };
        let winners = winners(&arena.race(claims).await);
        assert!(
            winners == [1] || winners == [2],
            "one successor, not the attempts {winners:?}"
        );
    }
}

/// Of 64 outcomes completed with one token one is stored, and only its completion is answered with applied.
pub async fn one_of_many_outcomes_is_stored(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let owner = arena.claim(key);
        attempt(&acquire(arena.store(), &owner).await);
        let completions = |contender: Contender| {
            let owner = owner.clone();
            async move {
                let outcome = outcome_with(&contender.number.to_string());
                (complete(contender.store(), &owner, &outcome).await == Write::Applied)
                    .then_some(outcome)
            }
        };
        let applied: Vec<_> = arena
            .race(completions)
            .await
            .into_iter()
            .flatten()
            .collect();
        let (_, _, stored) = snapshot(arena.store(), key).await.expect("completed");
        assert_eq!(
            applied,
            [stored.expect("an outcome")],
            "only the completion of the stored outcome is applied"
        );
    }
}

/// A late completion races take-overs: either it is applied and nobody takes over, or one claim does and the
/// completion is fenced.
pub async fn a_late_completion_and_a_take_over_exclude_each_other(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let (write, taken) = arena.late(key, Late::Completion).await;
        let (_, number, stored) = snapshot(arena.store(), key).await.expect("the record");
        match write {
            Write::Applied => {
                assert_eq!((taken, number, stored), (0, 1, Some(outcome_with("old"))));
            }
            Write::Fenced => assert_eq!((taken, number, stored), (1, 2, None)),
            Write::Missing => panic!("the record existed all the time"),
        }
    }
}

/// A late renewal races take-overs: either the lease is live again and nobody takes over, or one claim does and the
/// renewal is fenced.
pub async fn a_late_renewal_and_a_take_over_exclude_each_other(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let (write, taken) = arena.late(key, Late::Renewal).await;
        match write {
            Write::Applied => assert_eq!(taken, 0),
            Write::Fenced => assert_eq!(taken, 1),
            Write::Missing => panic!("the record existed all the time"),
        }
        // Nor does a claim that names a lease which is none of the record's.
        let other = arena.claim(key).take_over(Token::random());
        assert_in_flight(&acquire(arena.store(), &other).await);
    }
}

/// A key that 64 contenders acquire and release in turn is held by one at a time.
pub async fn a_key_that_is_released_is_held_by_one_at_a_time(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    let held = Arc::new(AtomicBool::new(false));
    let turns = |contender: Contender| {
        let held = Arc::clone(&held);
        async move { take_a_turn(&contender, &held).await }
    };
    arena.race(turns).await;
    assert!(get(arena.store(), key(1)).await.is_none());
}

/// Continuous purges delete no record of concurrent executions.
pub async fn a_purge_takes_nothing_from_running_executions(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    let parts = |contender: Contender| async move {
        let store = contender.store();
        if contender.number.is_multiple_of(8) {
            for _ in 0..ROUNDS {
                assert_eq!(purge(store, 100).await, 0, "nothing has expired");
                yield_now().await;
            }
            return;
        }
        let owner = contender.claim(key(contender.number));
        attempt(&acquire(store, &owner).await);
        yield_now().await;
        assert_eq!(renew(store, &owner).await, Write::Applied);
        yield_now().await;
        assert_eq!(
            complete(store, &owner, &outcome_with("done")).await,
            Write::Applied
        );
        let again = acquire(store, &contender.claim(owner.key)).await;
        assert_eq!(again, Acquisition::Completed(outcome_with("done")));
    };
    arena.race(parts).await;
}

/// Purges race claims for an outcome that is just expiring: the claim that acquires the key keeps its record and
/// completes it.
pub async fn a_purge_takes_nothing_from_the_next_lease(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let store = arena.store();
        let old = Claim {
            ttl: Duration::from_millis(5),
            ..arena.claim(key)
        };
        attempt(&acquire(store, &old).await);
        assert_eq!(
            complete(store, &old, &outcome_with("old")).await,
            Write::Applied
        );
        let parts = |contender: Contender| async move {
            let (store, mine) = (contender.store(), contender.claim(key));
            if contender.number.is_multiple_of(2) {
                for _ in 0..8 {
                    purge(store, 100).await;
                    yield_now().await;
                }
                return None;
            }
            let decided = claim_until_expired(store, &mine).await;
            matches!(decided, Acquisition::Acquired { .. }).then_some(mine)
        };
        let winners: Vec<_> = arena.race(parts).await.into_iter().flatten().collect();
        let [winner] = &winners[..] else {
            panic!("one successor, not {}", winners.len());
        };
        purge(store, 100).await;
        assert_eq!(
            complete(store, winner, &outcome_with("new")).await,
            Write::Applied
        );
        let again = acquire(store, &arena.claim(key)).await;
        assert_eq!(again, Acquisition::Completed(outcome_with("new")));
    }
}

async fn claim_until_expired(store: &dyn ErasedStore, claim: &Claim) -> Acquisition {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match acquire(store, claim).await {
            Acquisition::Completed(outcome) => assert_eq!(outcome, outcome_with("old")),
            decided => return decided,
        }
        assert!(
            Instant::now() < deadline,
            "an outcome of five milliseconds expires"
        );
        yield_now().await;
    }
}

/// Acquires the key, holds it for a moment and releases it.
async fn take_a_turn(contender: &Contender, held: &AtomicBool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (store, mine) = (contender.store(), contender.claim(key(1)));
    loop {
        match acquire(store, &mine).await {
            Acquisition::Acquired { .. } => break,
            other => assert_in_flight(&other),
        }
        assert!(Instant::now() < deadline, "each contender gets a turn");
        yield_now().await;
    }
    assert!(
        !held.swap(true, Ordering::SeqCst),
        "another contender holds the key"
    );
    yield_now().await;
    held.store(false, Ordering::SeqCst);
    assert_eq!(release(store, &mine).await, Write::Applied);
}
