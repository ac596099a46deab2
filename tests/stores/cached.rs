//! The conformance suite on cached stores, and what the cache promises in addition.

use std::time::Duration;

use idempotent_runtime::{
    Fingerprint, MemoryStore, StoreKey,
    store::{
        Acquisition, Claim, ClaimMode, Outcome, Store, Write,
        cached::Cached,
        conformance::{Harness, key},
    },
};

use crate::{
    counting::Counting,
    memory::MemoryHarness,
    redis::{RedisHarness, installed},
    toolbox::{done, execute, large, new_claim},
};

const MAX_BYTES: u64 = 1 << 20;

/// A cache in front of another harness's store.
struct CachedHarness<H: Harness> {
    store: Cached<H::Store>,
    inner: H,
}

impl<H: Harness> Harness for CachedHarness<H> {
    type Store = Cached<H::Store>;
    const TICK: Duration = H::TICK;
    const PAUSED: bool = H::PAUSED;
    const INSPECTABLE: bool = H::INSPECTABLE;
    const STEPS: bool = H::STEPS;

    async fn open() -> Self {
        let inner = H::open().await;
        let store = Cached::new(inner.second_handle().await, MAX_BYTES);
        Self { store, inner }
    }

    fn store(&self) -> &Self::Store {
        &self.store
    }

    async fn second_handle(&self) -> Self::Store {
        Cached::new(self.inner.second_handle().await, MAX_BYTES)
    }

    /// A server's harness moves the stored times back. The clock of this process, which the cache uses, does not move then,
    /// so the cache is emptied. Its own expiry is tested in front of the memory store, where the clock is moved.
    async fn advance(&self, by: Duration) {
        self.inner.advance(by).await;
        if !H::PAUSED {
            self.store.clear();
        }
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        self.store.clear();
        self.inner.corrupt(key, stored).await
    }
}

mod conformance_in_front_of_memory {
    idempotent_runtime::store_conformance!(super::CachedHarness<super::MemoryHarness>);
}

mod conformance_in_front_of_redis {
    idempotent_runtime::store_conformance!(super::CachedHarness<super::RedisHarness>, if super::installed());
}

/// An empty store that counts its operations.
fn empty() -> Counting {
    Counting::new(MemoryStore::new())
}

fn mine() -> Claim {
    new_claim(key(1))
}

/// A claim of the same key with another fingerprint.
fn mismatching() -> Claim {
    let mut claim = mine();
    claim.fingerprint = Fingerprint::from_bytes([0xee; 32]);
    claim
}

/// Lets all spawned tasks run, which here never wait for anything.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_completed_here_replays_without_a_round_trip() {
    for outcome in [done(), Outcome::Tombstone] {
        let inner = empty();
        let store = Cached::new(inner.clone(), MAX_BYTES);
        execute(&store, &mine(), &outcome).await;
        inner.take();
        for _ in 0..100 {
            let again = store.acquire(&mine()).await.unwrap();
            assert_eq!(again, Acquisition::Completed(outcome.clone()));
        }
        assert_eq!(inner.take(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_expiry_of_an_outcome_completed_elsewhere_is_looked_up_once() {
    let inner = empty();
    execute(&inner, &mine(), &done()).await;
    let store = Cached::new(inner.clone(), MAX_BYTES);
    inner.take();
    for _ in 0..100 {
        let again = store.acquire(&mine()).await.unwrap();
        assert_eq!(again, Acquisition::Completed(done()));
        settle().await;
    }
    // The acquire that found it, and the look-up of its expiry.
    assert_eq!(inner.take(), 2);
}

/// Many replays at once, as after a start, cause no storm of look-ups: the others are looked up later.
#[tokio::test(start_paused = true)]
async fn at_most_64_expiries_are_looked_up_at_a_time() {
    let inner = empty();
    for n in 0..100 {
        execute(&inner, &new_claim(key(n)), &done()).await;
    }
    let store = Cached::new(inner.clone(), MAX_BYTES);
    let replay_all = async || {
        inner.take();
        for n in 0..100 {
            let again = store.acquire(&new_claim(key(n))).await.unwrap();
            assert_eq!(again, Acquisition::Completed(done()));
        }
    };
    replay_all().await;
    settle().await;
    assert_eq!(inner.take(), 100 + 64);
    replay_all().await;
    settle().await;
    assert_eq!(inner.take(), 36 + 36, "the permits are given back");
}

#[tokio::test(start_paused = true)]
async fn no_outcome_is_kept_beyond_its_expiry() {
    for elsewhere in [false, true] {
        let inner = empty();
        let store = Cached::new(inner.clone(), MAX_BYTES);
        // Thirty seconds of its ttl of a hundred pass before the cache has it.
        if elsewhere {
            execute(&inner, &mine(), &done()).await;
            tokio::time::advance(Duration::from_secs(30)).await;
            store.acquire(&mine()).await.unwrap();
            settle().await;
        } else {
            execute(&store, &mine(), &done()).await;
            tokio::time::advance(Duration::from_secs(30)).await;
        }
        tokio::time::advance(Duration::from_millis(69_800)).await;
        inner.take();
        let again = store.acquire(&mine()).await.unwrap();
        assert_eq!(again, Acquisition::Completed(done()));
        assert_eq!(inner.take(), 0, "kept until shortly before its expiry");
        tokio::time::advance(Duration::from_millis(250)).await;
        let next = store.acquire(&mine()).await.unwrap();
        assert!(matches!(next, Acquisition::Acquired { .. }), "{next:?}");
    }
}

/// A completion may be repeated long after it was applied; the outcome expires by the first time.
#[tokio::test(start_paused = true)]
async fn a_repeated_completion_does_not_prolong_a_cached_outcome() {
    let store = Cached::new(empty(), MAX_BYTES);
    let owner = mine();
    store.acquire(&owner).await.unwrap();
    // Past the cache, as if the reply to this completion had been lost.
    let applied = store.inner().complete(&owner.held(), &done()).await;
    assert_eq!(applied.unwrap(), Write::Applied);
    tokio::time::advance(Duration::from_secs(50)).await;
    let repeated = store.complete(&owner.held(), &done()).await.unwrap();
    assert_eq!(repeated, Write::Applied);
    tokio::time::advance(Duration::from_millis(50_001)).await;
    let next = store.acquire(&mine()).await.unwrap();
    assert!(matches!(next, Acquisition::Acquired { .. }), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cached_outcome_is_a_mismatch_for_another_fingerprint() {
    let store = Cached::new(empty(), MAX_BYTES);
    execute(&store, &mine(), &done()).await;
    let other = mismatching();
    let fingerprint = mine().fingerprint;
    assert_eq!(
        store.acquire(&other).await.unwrap(),
        Acquisition::Mismatch { fingerprint }
    );
    assert_eq!(store.inner().take(), 2);
}

#[tokio::test(start_paused = true)]
async fn answers_without_an_outcome_are_not_cached() {
    let inner = empty();
    let store = Cached::new(inner.clone(), MAX_BYTES);
    let owner = mine();
    store.acquire(&owner).await.unwrap();
    let other = mismatching();
    inner.take();
    for _ in 0..3 {
        let answer = store.acquire(&mine()).await.unwrap();
        let named = matches!(answer, Acquisition::InFlight { lease, .. } if lease == owner.token);
        assert!(named, "{answer:?}");
        let fingerprint = owner.fingerprint;
        assert_eq!(
            store.acquire(&other).await.unwrap(),
            Acquisition::Mismatch { fingerprint }
        );
    }
    tokio::time::advance(Duration::from_secs(11)).await;
    for _ in 0..3 {
        let unknown = Acquisition::Unknown {
            lease: owner.token,
            mode: ClaimMode::Plain,
        };
        assert_eq!(store.acquire(&mine()).await.unwrap(), unknown);
    }
    settle().await;
    assert_eq!(inner.take(), 9);
    // A release leaves no outcome either.
    assert_eq!(
        store.release(&key(1), &owner.token).await.unwrap(),
        Write::Applied
    );
    let next = store.acquire(&mine()).await.unwrap();
    assert_eq!(next, Acquisition::Acquired { attempt: 1 });
}

#[tokio::test(start_paused = true)]
async fn the_size_of_cached_outcomes_is_bounded() {
    let inner = empty();
    let store = Cached::new(inner.clone(), 64 << 10);
    let big = large(10 << 10);
    for n in 0..100 {
        execute(&store, &new_claim(key(n)), &big).await;
    }
    // Larger than the whole cache.
    let huge = large(100 << 10);
    execute(&store, &new_claim(key(200)), &huge).await;
    inner.take();
    for n in 0..100 {
        let again = store.acquire(&new_claim(key(n))).await.unwrap();
        assert_eq!(again, Acquisition::Completed(big.clone()));
    }
    let again = store.acquire(&new_claim(key(200))).await.unwrap();
    assert_eq!(again, Acquisition::Completed(huge));
    assert!(
        inner.take() >= 101 - 6,
        "at most six responses of 10 KiB fit"
    );
}
