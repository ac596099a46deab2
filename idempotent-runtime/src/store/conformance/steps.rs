//! The log of an execution's steps: what is kept of it, for whom, and for how long.
//!
//! These cases run on stores whose harness says [`STEPS`](super::Harness::STEPS); for others they check that the store
//! says so too.

use std::sync::Arc;

use super::{
    Subject,
    arena::{Arena, Contender, rounds},
    toolbox::{
        LEASE, OTHER_FINGERPRINT, TTL, abandon, acquire, attempt, complete, key, lapsed,
        outcome_with, purge_all, release, renew, snapshot,
    },
};
use crate::store::{
    erased::ErasedStore,
    record::{Acquisition, Claim, Write},
    steps::{MAX_LOG, StepLog, StepsRead},
};

/// The log, unless the store has none and its harness says so.
#[track_caller]
fn log<'a>(subject: &Subject, store: &'a dyn ErasedStore) -> Option<&'a dyn StepLog> {
    let log = store.step_log();
    assert_eq!(
        log.is_some(),
        subject.keeps_steps(),
        "the harness's `STEPS` and the store's `step_log` disagree"
    );
    log
}

async fn read(log: &dyn StepLog, claim: &Claim) -> StepsRead {
    let read = log.read_steps(&claim.key, &claim.token);
    read.await.expect("read_steps")
}

async fn append(log: &dyn StepLog, claim: &Claim, at: usize, bytes: &[u8]) -> Write {
    let append = log.append_step(&claim.key, &claim.token, at, bytes);
    append.await.expect("append_step")
}

fn log_of(bytes: &[u8]) -> StepsRead {
    StepsRead::Log(bytes.to_vec().into())
}

/// A new record, and its claim.
async fn acquired(subject: &Subject, number: u8) -> Claim {
    let claim = subject.claim(key(number));
    attempt(&acquire(subject.store(), &claim).await);
    claim
}

/// What is appended is read in its order, byte for byte; a new record has nothing.
pub async fn a_log_is_read_as_it_was_appended(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let claim = acquired(&subject, 1).await;
    assert_eq!(read(log, &claim).await, log_of(b""));
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(append(log, &claim, 0, &all).await, Write::Applied);
    assert_eq!(append(log, &claim, 256, b"\0'\\").await, Write::Applied);
    assert_eq!(append(log, &claim, 259, b"third").await, Write::Applied);
    let whole = [&all[..], b"\0'\\third"].concat();
    assert_eq!(read(log, &claim).await, log_of(&whole));
}

/// A log of the largest size is kept.
pub async fn a_log_may_have_the_largest_size(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let claim = acquired(&subject, 1).await;
    let part: Vec<u8> = (0..MAX_LOG / 4)
        .map(|n| u8::try_from(n % 251).expect("less than 251"))
        .collect();
    for n in 0..4 {
        let at = n * part.len();
        assert_eq!(append(log, &claim, at, &part).await, Write::Applied);
    }
    assert_eq!(read(log, &claim).await, log_of(&part.repeat(4)));
}

/// The reply to an append may be lost: repeated, it changes nothing, also after the log has grown.
pub async fn a_repeated_append_is_applied_and_changes_nothing(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let claim = acquired(&subject, 1).await;
    for _ in 0..2 {
        assert_eq!(append(log, &claim, 0, b"one").await, Write::Applied);
    }
    assert_eq!(append(log, &claim, 3, b"two").await, Write::Applied);
    for (at, bytes) in [(0, b"one"), (3, b"two")] {
        assert_eq!(append(log, &claim, at, bytes).await, Write::Applied);
    }
    assert_eq!(read(log, &claim).await, log_of(b"onetwo"));
}

/// What is in a log is not overwritten, and no gap is left in it.
pub async fn an_append_elsewhere_is_fenced(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let claim = acquired(&subject, 1).await;
    assert_eq!(append(log, &claim, 1, b"x").await, Write::Fenced);
    assert_eq!(append(log, &claim, 0, b"one").await, Write::Applied);
    for (at, bytes) in [
        (0, &b"two"[..]),
        (0, b"onet"),
        (2, b"et"),
        (4, b"x"),
        (1 << 30, b"x"),
    ] {
        let write = append(log, &claim, at, bytes).await;
        assert_eq!(write, Write::Fenced, "{at} {bytes:?}");
    }
    assert_eq!(read(log, &claim).await, log_of(b"one"));
}

/// Another token neither reads the log nor changes it.
pub async fn another_token_neither_reads_nor_appends(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let claim = acquired(&subject, 1).await;
    assert_eq!(append(log, &claim, 0, b"one").await, Write::Applied);
    let other = subject.claim(key(1));
    assert_eq!(read(log, &other).await, StepsRead::Fenced);
    assert_eq!(append(log, &other, 3, b"two").await, Write::Fenced);
    // Not even what is there already.
    assert_eq!(append(log, &other, 0, b"one").await, Write::Fenced);
    assert_eq!(read(log, &claim).await, log_of(b"one"));
}

/// The next attempt reads what the crashed one appended, and goes on behind it; the crashed one is fenced.
pub async fn a_take_over_keeps_the_log(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let store = subject.store();
    let old = acquired(&subject, 1).await;
    assert_eq!(append(log, &old, 0, b"one").await, Write::Applied);
    subject.advance(subject.ticks(LEASE + 1)).await;
    let new = subject.claim(key(1)).take_over(old.token);
    assert_eq!(attempt(&acquire(store, &new).await), 2);
    assert_eq!(read(log, &new).await, log_of(b"one"));
    assert_eq!(append(log, &old, 3, b"late").await, Write::Fenced);
    assert_eq!(append(log, &old, 0, b"one").await, Write::Fenced);
    assert_eq!(read(log, &old).await, StepsRead::Fenced);
    assert_eq!(append(log, &new, 3, b"two").await, Write::Applied);
    assert_eq!(read(log, &new).await, log_of(b"onetwo"));
}

/// Renewals, repeated acquires and an abandoned or lapsed lease change nothing for the current token.
pub async fn other_operations_keep_the_log(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let store = subject.store();
    let claim = acquired(&subject, 1).await;
    assert_eq!(append(log, &claim, 0, b"one").await, Write::Applied);
    assert_eq!(renew(store, &claim).await, Write::Applied);
    assert_eq!(attempt(&acquire(store, &claim).await), 1);
    assert_eq!(abandon(store, &claim).await, Write::Applied);
    subject.advance(subject.ticks(LEASE + 1)).await;
    assert_eq!(append(log, &claim, 3, b"two").await, Write::Applied);
    assert_eq!(read(log, &claim).await, log_of(b"onetwo"));
    // It extends no lease.
    assert!(matches!(
        acquire(store, &subject.claim(key(1))).await,
        Acquisition::Unknown { .. }
    ));
}

/// A completion stores the outcome as ever, and ends the log.
pub async fn a_completed_record_has_no_log(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let store = subject.store();
    let claim = acquired(&subject, 1).await;
    assert_eq!(append(log, &claim, 0, b"one").await, Write::Applied);
    let outcome = outcome_with("done");
    for _ in 0..2 {
        assert_eq!(complete(store, &claim, &outcome).await, Write::Applied);
    }
    assert_eq!(read(log, &claim).await, StepsRead::Fenced);
    for (at, bytes) in [(0, b"one"), (3, b"two")] {
        assert_eq!(append(log, &claim, at, bytes).await, Write::Fenced);
    }
    let (_, number, stored) = snapshot(store, key(1)).await.expect("the record");
    assert_eq!((number, stored), (1, Some(outcome.clone())));
    assert_eq!(
        acquire(store, &subject.claim(key(1))).await,
        Acquisition::Completed(outcome)
    );
}

/// Steps never make a record: without one the answer is missing.
pub async fn a_missing_record_has_no_log(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let claim = subject.claim(key(1));
    assert_eq!(read(log, &claim).await, StepsRead::Missing);
    assert_eq!(append(log, &claim, 0, b"one").await, Write::Missing);
    assert!(snapshot(subject.store(), key(1)).await.is_none());
}

/// A released key begins without steps.
pub async fn a_released_record_takes_its_log_along(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let store = subject.store();
    let old = acquired(&subject, 1).await;
    assert_eq!(append(log, &old, 0, b"one").await, Write::Applied);
    assert_eq!(release(store, &old).await, Write::Applied);
    assert_eq!(read(log, &old).await, StepsRead::Missing);
    let new = acquired(&subject, 1).await;
    assert_eq!(read(log, &new).await, log_of(b""));
    assert_eq!(append(log, &new, 0, b"new").await, Write::Applied);
    assert_eq!(read(log, &new).await, log_of(b"new"));
}

/// A record that expired begins without steps, whether it was purged or is claimed as it is; so does one that was
/// completed.
pub async fn an_expired_record_begins_without_steps(subject: Arc<Subject>) {
    let Some(log) = log(&subject, subject.store()) else {
        return;
    };
    let store = subject.store();
    for (number, completes, purges) in [
        (1, false, false),
        (2, false, true),
        (3, true, false),
        (4, true, true),
    ] {
        let old = lapsed(&subject, key(number)).await;
        assert_eq!(append(log, &old, 0, b"old").await, Write::Applied);
        if completes {
            let completed = complete(store, &old, &outcome_with("done")).await;
            assert_eq!(completed, Write::Applied);
        }
        subject.advance(subject.ticks(LEASE + TTL + 1)).await;
        if purges {
            purge_all(store).await;
        }
        // Also one for another request, which must not see what the first one did.
        let new = Claim {
            fingerprint: OTHER_FINGERPRINT,
            ..subject.claim(key(number))
        };
        attempt(&acquire(store, &new).await);
        assert_eq!(read(log, &new).await, log_of(b""), "{number}");
    }
}

/// A second handle reads what the first one appended.
pub async fn a_second_handle_reads_the_same_log(subject: Arc<Subject>) {
    let second = subject.second_handle().await;
    let (Some(log), Some(other)) = (log(&subject, subject.store()), log(&subject, &*second)) else {
        return;
    };
    let claim = acquired(&subject, 1).await;
    assert_eq!(append(log, &claim, 0, b"one").await, Write::Applied);
    assert_eq!(append(other, &claim, 3, b"two").await, Write::Applied);
    assert_eq!(read(log, &claim).await, log_of(b"onetwo"));
    assert_eq!(read(other, &claim).await, log_of(b"onetwo"));
}

/// A late append races take-overs: the one that wins reads the step if and only if the append was applied.
pub async fn a_late_append_and_a_take_over_exclude_each_other(subject: Arc<Subject>) {
    let keeps_steps = log(&subject, subject.store()).is_some();
    let arena = Arena::new(subject).await;
    if !keeps_steps {
        return;
    }
    for key in rounds() {
        let old = arena.abandoned(key).await;
        let answers = arena.race(|contender: Contender| {
            let old = old.clone();
            async move {
                let store = contender.store();
                let log = store.step_log().expect("a log");
                // In the middle, so that others start before and after it.
                if contender.number == 32 {
                    return (Some(append(log, &old, 0, b"late").await), None);
                }
                let new = contender.claim(old.key).take_over(old.token);
                match acquire(store, &new).await {
                    Acquisition::Acquired { .. } => (None, Some(read(log, &new).await)),
                    _ => (None, None),
                }
            }
        });
        let answers = answers.await;
        let appended = answers.iter().find_map(|(appended, _)| *appended);
        let mut reads = answers.into_iter().filter_map(|(_, read)| read);
        let read = reads.next().expect("one takes over");
        assert_eq!(reads.next(), None, "only one takes over");
        let seen: &[u8] = match appended.expect("the append") {
            Write::Applied => b"late",
            Write::Fenced => b"",
            Write::Missing => panic!("the record existed all the time"),
        };
        assert_eq!(read, log_of(seen));
    }
}

/// The same append, repeated at once from everywhere, is in the log once.
pub async fn repetitions_of_one_append_are_one(subject: Arc<Subject>) {
    let keeps_steps = log(&subject, subject.store()).is_some();
    let arena = Arena::new(subject).await;
    if !keeps_steps {
        return;
    }
    for key in rounds() {
        let claim = arena.claim(key);
        attempt(&acquire(arena.store(), &claim).await);
        let writes = arena.race(|contender: Contender| {
            let claim = claim.clone();
            async move {
                let log = contender.store().step_log().expect("a log");
                append(log, &claim, 0, b"once").await
            }
        });
        assert!(writes.await.iter().all(|write| *write == Write::Applied));
        let log = arena.store().step_log().expect("a log");
        assert_eq!(read(log, &claim).await, log_of(b"once"));
    }
}
