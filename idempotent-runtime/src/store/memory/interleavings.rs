//! The store under a model checker that chooses which thread runs next at every lock and every atomic.
//!
//! The decisions, the table and the index are those of production; only the locks are the checker's. Run with
//! `RUSTFLAGS="--cfg idempotent_shuttle" cargo test -p idempotent-runtime --lib interleavings`. The checker prints
//! a failing schedule, and `shuttle::replay` repeats it.

use std::time::Duration;

use shuttle::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::MemoryStore;
use crate::{
    fingerprint::Fingerprint,
    scope::StoreKey,
    store::{
        Store,
        error::StoreErrorKind,
        record::{Acquisition, Claim, Outcome, Write},
        token::Token,
    },
};

const LEASE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(100);

/// Runs a scenario under many schedules: random ones, which find shallow errors, and ones with few forced switches,
/// which find deep errors.
fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let scenario = Arc::new(scenario);
    let again = Arc::clone(&scenario);
    shuttle::check_random(move || scenario(), 3_000);
    shuttle::check_pct(move || again(), 3_000, 3);
}

#[test]
fn of_three_claims_for_a_new_key_one_is_acquired() {
    explore(|| {
        let store = MemoryStore::new();
        let answers = all((0..3).map(|_| act(&store, |store| acquire(store, &claim(1)))));
        assert_eq!(acquired(&answers), [1]);
        assert_eq!(in_flight(&answers), 2);
        store.audit();
    });
}

#[test]
fn of_three_take_overs_of_a_lapsed_lease_one_is_acquired() {
    explore(|| {
        let store = MemoryStore::new();
        let lapsed = claim(1);
        acquire(&store, &lapsed);
        store.advance(LEASE);
        let lease = lapsed.token;
        let answers = all((0..3).map(|_| {
            act(&store, move |store| {
                acquire(store, &claim(1).take_over(lease))
            })
        }));
        assert_eq!(acquired(&answers), [2]);
        assert_eq!(in_flight(&answers), 2);
        store.audit();
    });
}

#[test]
fn a_late_completion_and_take_overs_exclude_each_other() {
    explore(|| {
        let store = MemoryStore::new();
        let old = claim(1);
        acquire(&store, &old);
        store.advance(LEASE);
        let lease = old.token;
        let late = act(&store, move |store| complete(store, &old));
        let takers = all((0..2).map(|_| {
            act(&store, move |store| {
                acquire(store, &claim(1).take_over(lease))
            })
        }));
        let expected = if late.join().unwrap() == Write::Applied {
            &[][..]
        } else {
            &[2]
        };
        assert_eq!(acquired(&takers), expected);
        store.audit();
    });
}

#[test]
fn a_released_key_is_held_by_one_at_a_time() {
    explore(|| {
        let store = MemoryStore::new();
        let held = Arc::new(AtomicBool::new(false));
        let turns = (0..3).map(|_| {
            let held = Arc::clone(&held);
            act(&store, move |store| {
                let mine = claim(1);
                if let Acquisition::Acquired { .. } = acquire(store, &mine) {
                    assert!(!held.swap(true, Ordering::SeqCst), "two hold the key");
                    held.store(false, Ordering::SeqCst);
                    assert_eq!(
                        block_on(store.release(&mine.key, &mine.token)).unwrap(),
                        Write::Applied
                    );
                }
            })
        });
        all(turns);
        assert!(store.is_empty());
        store.audit();
    });
}

#[test]
fn a_purge_never_deletes_a_lease_that_is_renewed_in_time() {
    explore(|| {
        let store = MemoryStore::new();
        let owner = claim(1);
        acquire(&store, &owner);
        store.advance(LEASE + TTL - Duration::from_secs(1));
        // Renewed before its expiry; both purges run after the old expiry.
        assert_eq!(
            block_on(store.renew(&owner.held())).unwrap(),
            Write::Applied
        );
        store.advance(Duration::from_secs(1));
        let purges =
            (0..2).map(|_| act(&store, |store| block_on(store.purge_expired(10)).unwrap()));
        let renewal = {
            let owner = owner.clone();
            act(&store, move |store| {
                block_on(store.renew(&owner.held())).unwrap()
            })
        };
        assert_eq!(all(purges), [0, 0]);
        assert_eq!(renewal.join().unwrap(), Write::Applied);
        assert_eq!(complete(&store, &owner), Write::Applied);
        store.audit();
    });
}

#[test]
fn an_expired_row_is_either_purged_or_written_to() {
    explore(|| {
        let store = MemoryStore::new();
        let old = claim(1);
        acquire(&store, &old);
        store.advance(LEASE + TTL);
        let purge = act(&store, |store| block_on(store.purge_expired(10)).unwrap());
        let next = act(&store, |store| acquire(store, &claim(1)));
        let late = act(&store, move |store| complete(store, &old));
        let (purged, next, late) = (
            purge.join().unwrap(),
            next.join().unwrap(),
            late.join().unwrap(),
        );
        match (next, late) {
            // The late completion came first and is replayed: the row is neither purged nor acquired.
            (Acquisition::Completed(_), Write::Applied) => assert_eq!(purged, 0),
            // The acquire reused the expired row.
            (Acquisition::Acquired { attempt: 2 }, Write::Fenced) => assert_eq!(purged, 0),
            // The purge came first; the late completion found no record, or that of the next owner.
            (Acquisition::Acquired { attempt: 1 }, Write::Missing | Write::Fenced) => {
                assert_eq!(purged, 1)
            }
            other => panic!("{other:?} with {purged} purged"),
        }
        assert_eq!(store.len(), 1);
        store.audit();
    });
}

#[test]
fn the_bound_on_records_holds_and_freed_room_is_reused() {
    explore(|| {
        let store = MemoryStore::builder().max_records(2).build();
        let admitted = (1..=3).map(|n| {
            act(&store, move |store| {
                match block_on(store.acquire(&claim(n))) {
                    Ok(acquisition) => {
                        assert_eq!(acquisition, Acquisition::Acquired { attempt: 1 });
                        Some(claim(n))
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), StoreErrorKind::Full);
                        None
                    }
                }
            })
        });
        assert_eq!(all(admitted).iter().flatten().count(), 2);
        store.audit();
        store.advance(LEASE + TTL);
        // Expired records make room.
        assert_eq!(
            acquire(&store, &claim(4)),
            Acquisition::Acquired { attempt: 1 }
        );
        store.audit();
    });
}

#[test]
fn only_completed_records_are_evicted() {
    explore(|| {
        let store = MemoryStore::builder()
            .max_records(2)
            .evict_oldest_completed()
            .build();
        let (done, live) = (claim(1), claim(2));
        acquire(&store, &done);
        complete(&store, &done);
        acquire(&store, &live);
        let newcomers = (3..=4).map(|n| {
            act(&store, move |store| {
                block_on(store.acquire(&claim(n))).is_ok()
            })
        });
        let admitted = all(newcomers).iter().filter(|admitted| **admitted).count();
        assert_eq!(
            admitted, 1,
            "one claim evicts the completed record; for the other none is left"
        );
        assert_eq!(complete(&store, &live), Write::Applied);
        store.audit();
    });
}

#[test]
fn rows_index_and_meter_agree_after_any_mix_of_operations() {
    explore(|| {
        let store = MemoryStore::new();
        let clock = act(&store, |store| {
            for by in [LEASE, TTL, LEASE] {
                store.advance(by);
                block_on(store.purge_expired(1)).unwrap();
            }
        });
        let lives = (0..3).map(|n: u8| {
            act(&store, move |store| {
                for turn in 0..2 {
                    let mut mine = claim(1 + (n + turn) % 2);
                    let mut answer = acquire(store, &mine);
                    if let Acquisition::Unknown { lease, .. } = answer {
                        mine = mine.take_over(lease);
                        answer = acquire(store, &mine);
                    }
                    if !matches!(answer, Acquisition::Acquired { .. }) {
                        continue;
                    }
                    block_on(store.renew(&mine.held())).unwrap();
                    match (n + turn) % 3 {
                        0 => drop(complete(store, &mine)),
                        1 => drop(block_on(store.release(&mine.key, &mine.token))),
                        _ => drop(block_on(store.abandon(&mine.key, &mine.token))),
                    }
                }
            })
        });
        all(lives);
        clock.join().unwrap();
        store.audit();
    });
}

fn claim(n: u8) -> Claim {
    Claim::new(
        StoreKey::from_bytes([n; 32]),
        Fingerprint::from_bytes([7; 32]),
        Token::random(),
        LEASE,
        TTL,
    )
}

fn acquire(store: &MemoryStore, claim: &Claim) -> Acquisition {
    block_on(store.acquire(claim)).unwrap()
}

fn complete(store: &MemoryStore, claim: &Claim) -> Write {
    block_on(store.complete(&claim.held(), &Outcome::Tombstone)).unwrap()
}

fn act<R: Send + 'static>(
    store: &MemoryStore,
    act: impl FnOnce(&MemoryStore) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let store = store.clone();
    thread::spawn(move || act(&store))
}

/// Starts all before it waits for any.
fn all<R>(threads: impl Iterator<Item = thread::JoinHandle<R>>) -> Vec<R> {
    let threads: Vec<_> = threads.collect();
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect()
}

fn acquired(answers: &[Acquisition]) -> Vec<u32> {
    let attempt = |answer: &Acquisition| match answer {
        Acquisition::Acquired { attempt } => Some(*attempt),
        _ => None,
    };
    answers.iter().filter_map(attempt).collect()
}

fn in_flight(answers: &[Acquisition]) -> usize {
    answers
        .iter()
        .filter(|answer| matches!(answer, Acquisition::InFlight { .. }))
        .count()
}
