//! What a purge deletes, and that no other record is ever deleted.

use std::sync::Arc;

use super::{
    Subject,
    toolbox::{
        LEASE, TTL, acquire, assert_in_flight, assert_unknown, attempt, complete, completed, key,
        lapsed, outcome_with, purge, purge_all, renew,
    },
};
use crate::{
    scope::StoreKey,
    store::record::{Acquisition, Claim, Outcome, Write},
};

/// A purge deletes expired records of every state.
pub async fn a_purge_deletes_what_expired(subject: Arc<Subject>) {
    let store = subject.store();
    let owners = many_expired(&subject).await;
    purge_all(store).await;
    for owner in owners {
        // Were the row still there, its owner could complete.
        assert_eq!(
            complete(store, &owner, &outcome_with("late")).await,
            Write::Missing
        );
        assert_eq!(
            acquire(store, &owner).await,
            Acquisition::Acquired { attempt: 1 }
        );
    }
}

/// A purge deletes at most `limit` records and returns how many it deleted; repeated, it deletes all.
///
/// A store that deletes expired records by itself may answer 0.
pub async fn a_purge_honours_its_limit(subject: Arc<Subject>) {
    let store = subject.store();
    let owners = many_expired(&subject).await;
    assert_eq!(purge(store, 0).await, 0);
    let mut purged = 0;
    loop {
        let batch = purge(store, 3).await;
        assert!(batch <= 3, "a purge of at most 3 answered {batch}");
        purged += batch;
        assert!(
            purged <= owners.len(),
            "{purged} purged of {}",
            owners.len()
        );
        if batch == 0 {
            break;
        }
    }
    assert_eq!(
        complete(store, &owners[0], &outcome_with("late")).await,
        Write::Missing
    );
}

/// A purge deletes neither a live lease, renewed or not, nor a record that has not expired.
pub async fn a_purge_takes_nothing_before_its_time(subject: Arc<Subject>) {
    let store = subject.store();
    let renewed = subject.claim(key(1));
    attempt(&acquire(store, &renewed).await);
    for _ in 0..13 {
        subject.advance(subject.ticks(9)).await;
        assert_eq!(renew(store, &renewed).await, Write::Applied);
    }
    let unknown = subject.claim(key(2));
    attempt(&acquire(store, &unknown).await);
    completed(&subject, key(3), &outcome_with("done")).await;
    completed(&subject, key(4), &Outcome::Tombstone).await;
    // By now the first record would have expired without its renewals, and the second one's lease has lapsed.
    subject.advance(subject.ticks(8)).await;
    assert_eq!(renew(store, &renewed).await, Write::Applied);
    subject.advance(subject.ticks(4)).await;

    assert_eq!(purge(store, 100).await, 0, "nothing has expired");
    assert_in_flight(&acquire(store, &subject.claim(key(1)).take_over(renewed.token)).await);
    assert_unknown(&acquire(store, &subject.claim(key(2))).await);
    assert_eq!(
        acquire(store, &subject.claim(key(3))).await,
        Acquisition::Completed(outcome_with("done"))
    );
    assert_eq!(
        acquire(store, &subject.claim(key(4))).await,
        Acquisition::Completed(Outcome::Tombstone)
    );
    assert_eq!(
        complete(store, &renewed, &outcome_with("long")).await,
        Write::Applied
    );
    assert_eq!(
        complete(store, &unknown, &outcome_with("late")).await,
        Write::Applied
    );
}

/// Records in flight, unknown or completed stay, however many other records follow.
pub async fn other_records_push_nothing_out(subject: Arc<Subject>) {
    let store = subject.store();
    let unknown = lapsed(&subject, key(1)).await;
    let live = subject.claim(key(2));
    attempt(&acquire(store, &live).await);
    completed(&subject, key(3), &outcome_with("first")).await;
    for n in 0..=255 {
        let mut bytes = [0xaa; 32];
        bytes[31] = n;
        completed(
            &subject,
            StoreKey::from_bytes(bytes),
            &outcome_with("other"),
        )
        .await;
    }
    assert_unknown(&acquire(store, &subject.claim(key(1))).await);
    assert_in_flight(&acquire(store, &subject.claim(key(2))).await);
    assert_eq!(
        acquire(store, &subject.claim(key(3))).await,
        Acquisition::Completed(outcome_with("first"))
    );
    assert_eq!(
        complete(store, &unknown, &outcome_with("late")).await,
        Write::Applied
    );
    assert_eq!(
        complete(store, &live, &outcome_with("live")).await,
        Write::Applied
    );
}

/// Makes ten expired records and returns the claims that acquired them.
async fn many_expired(subject: &Subject) -> Vec<Claim> {
    let mut owners = Vec::new();
    for n in 1..=10 {
        let owner = match n % 3 {
            0 => completed(subject, key(n), &outcome_with("old")).await,
            1 => completed(subject, key(n), &Outcome::Tombstone).await,
            _ => {
                let owner = subject.claim(key(n));
                attempt(&acquire(subject.store(), &owner).await);
                owner
            }
        };
        owners.push(owner);
    }
    subject.advance(subject.ticks(LEASE + TTL + 1)).await;
    owners
}
