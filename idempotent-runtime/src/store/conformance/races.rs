//! What only shows when requests meet.

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
    arena::{Arena, Late, ROUNDS, Seat, rounds, winners},
    toolbox::{
        acquire, answer, assert_in_flight, attempt, complete, fixed, get, key, purge, release,
        renew,
    },
};
use crate::store::{
    erased::ErasedStore,
    record::{Acquisition, Claim, Write},
};

/// Of 64 claims for a new key one is acquired, and all others find it in flight.
pub async fn a_new_key_has_one_winner(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let claim = || arena.claim(key);
        assert_eq!(winners(&arena.claims(claim).await), [1]);
    }
}

/// Of 64 claims that take over a lapsed lease one gets it, as the next attempt.
pub async fn a_take_over_has_one_winner(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        arena.abandoned(key).await;
        let claim = || arena.claim(key).take_over(true);
        assert_eq!(winners(&arena.claims(claim).await), [2]);
    }
}

/// Of 64 claims that refuse a lapsed lease none is acquired.
pub async fn an_unknown_outcome_has_no_winner(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        arena.abandoned(key).await;
        for answer in arena.claims(|| arena.claim(key)).await {
            assert_eq!(answer, Acquisition::Unknown);
        }
    }
}

/// One claim repeated 64 times at once is acquired 64 times, as one attempt.
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
    let claims =
        |seat: Seat| async move { acquire(seat.store(), &seat.claim(key(seat.number))).await };
    for answer in arena.race(claims).await {
        assert_eq!(answer, Acquisition::Acquired { attempt: 1 });
    }
}

/// Of 64 claims for an outcome that expires in this moment one is acquired; until then, all see the old one.
pub async fn an_expiring_outcome_has_one_successor(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let store = arena.store();
        let old = Claim {
            ttl: Duration::from_millis(5),
            ..arena.claim(key)
        };
        attempt(&acquire(store, &old).await);
        assert_eq!(complete(store, &old, &answer("old")).await, Write::Applied);
        let claims =
            |seat: Seat| async move { claim_until_expired(seat.store(), &seat.claim(key)).await };
        let winners = winners(&arena.race(claims).await);
        assert!(
            winners == [1] || winners == [2],
            "one successor, not the attempts {winners:?}"
        );
    }
}

/// Of 64 outcomes completed with one token one is stored, and only its author is told so.
pub async fn one_of_many_outcomes_is_stored(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let owner = arena.claim(key);
        attempt(&acquire(arena.store(), &owner).await);
        let completions = |seat: Seat| {
            let owner = owner.clone();
            async move {
                let outcome = answer(&seat.number.to_string());
                (complete(seat.store(), &owner, &outcome).await == Write::Applied)
                    .then_some(outcome)
            }
        };
        let applied: Vec<_> = arena
            .race(completions)
            .await
            .into_iter()
            .flatten()
            .collect();
        let (_, _, stored) = fixed(arena.store(), key).await.expect("completed");
        assert_eq!(
            applied,
            [stored.expect("an outcome")],
            "one author was told that it is stored"
        );
    }
}

/// A late completion against take-overs: either it is in force and nobody takes over, or one does and it is
/// fenced.
pub async fn a_late_completion_and_a_take_over_exclude_each_other(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let (write, taken) = arena.late(key, Late::Completion).await;
        let (_, number, stored) = fixed(arena.store(), key).await.expect("the record");
        match write {
            Write::Applied => assert_eq!((taken, number, stored), (0, 1, Some(answer("old")))),
            Write::Fenced => assert_eq!((taken, number, stored), (1, 2, None)),
            Write::Missing => panic!("the record was there all the time"),
        }
    }
}

/// A late renewal against take-overs: either the lease lives again and nobody takes over, or one does and
/// the renewal is fenced.
pub async fn a_late_renewal_and_a_take_over_exclude_each_other(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    for key in rounds() {
        let (write, taken) = arena.late(key, Late::Renewal).await;
        match write {
            Write::Applied => assert_eq!(taken, 0),
            Write::Fenced => assert_eq!(taken, 1),
            Write::Missing => panic!("the record was there all the time"),
        }
        assert_in_flight(&acquire(arena.store(), &arena.claim(key).take_over(true)).await);
    }
}

/// A key that is released and acquired again by 64 contenders in turn is held by one at a time.
pub async fn a_key_that_is_released_is_held_by_one_at_a_time(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    let held = Arc::new(AtomicBool::new(false));
    let turns = |seat: Seat| {
        let held = Arc::clone(&held);
        async move { take_a_turn(&seat, &held).await }
    };
    arena.race(turns).await;
    assert!(get(arena.store(), key(1)).await.is_none());
}

/// Purges at full speed take nothing from executions at full speed.
pub async fn a_purge_takes_nothing_from_running_executions(subject: Arc<Subject>) {
    let arena = Arena::new(subject).await;
    let parts = |seat: Seat| async move {
        let store = seat.store();
        if seat.number.is_multiple_of(8) {
            for _ in 0..ROUNDS {
                assert_eq!(purge(store, 100).await, 0, "nothing has expired");
                yield_now().await;
            }
            return;
        }
        let owner = seat.claim(key(seat.number));
        attempt(&acquire(store, &owner).await);
        yield_now().await;
        assert_eq!(renew(store, &owner).await, Write::Applied);
        yield_now().await;
        assert_eq!(
            complete(store, &owner, &answer("done")).await,
            Write::Applied
        );
        let again = acquire(store, &seat.claim(owner.key)).await;
        assert_eq!(again, Acquisition::Completed(answer("done")));
    };
    arena.race(parts).await;
}

/// Purges against the claims for an outcome that expires in this moment: whoever is acquired owns the record, and
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
        assert_eq!(complete(store, &old, &answer("old")).await, Write::Applied);
        let parts = |seat: Seat| async move {
            let (store, mine) = (seat.store(), seat.claim(key));
            if seat.number.is_multiple_of(2) {
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
            complete(store, winner, &answer("new")).await,
            Write::Applied
        );
        let again = acquire(store, &arena.claim(key)).await;
        assert_eq!(again, Acquisition::Completed(answer("new")));
    }
}

async fn claim_until_expired(store: &dyn ErasedStore, claim: &Claim) -> Acquisition {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        match acquire(store, claim).await {
            Acquisition::Completed(outcome) => assert_eq!(outcome, answer("old")),
            decided => return decided,
        }
        assert!(
            Instant::now() < patience,
            "an outcome of five milliseconds expires"
        );
        yield_now().await;
    }
}

/// Acquires the key, holds it for a moment and releases it.
async fn take_a_turn(seat: &Seat, held: &AtomicBool) {
    let patience = Instant::now() + Duration::from_secs(60);
    let (store, mine) = (seat.store(), seat.claim(key(1)));
    loop {
        match acquire(store, &mine).await {
            Acquisition::Acquired { .. } => break,
            other => assert_in_flight(&other),
        }
        assert!(Instant::now() < patience, "everybody gets a turn");
        yield_now().await;
    }
    assert!(
        !held.swap(true, Ordering::SeqCst),
        "somebody else holds the key"
    );
    yield_now().await;
    held.store(false, Ordering::SeqCst);
    assert_eq!(release(store, &mine).await, Write::Applied);
}
