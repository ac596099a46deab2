//! The conformance suite on cached stores, and what the cache promises besides.

use std::time::Duration;

use idempotent_runtime::{
    Fingerprint, MemoryStore, StoreKey,
    store::{
        Acquisition, Claim, Outcome, Store, Write,
        cached::Cached,
        conformance::{Harness, key, response},
        redis::RedisStore,
    },
};

use crate::{
    counting::Counting,
    redis::{RedisHarness, installed},
    toolbox::{done, new_claim},
};

const ROOM: u64 = 1 << 20;

struct CachedHarness<H: Harness> {
    store: Cached<H::Store>,
    behind: H,
}

impl Harness for CachedHarness<crate::memory::MemoryHarness> {
    type Store = Cached<MemoryStore>;
    const PAUSED: bool = true;

    async fn open() -> Self {
        let behind = crate::memory::MemoryHarness::open().await;
        let store = Cached::new(behind.second_handle().await, ROOM);
        Self { store, behind }
    }

    fn store(&self) -> &Self::Store {
        &self.store
    }

    async fn second_handle(&self) -> Self::Store {
        Cached::new(self.behind.second_handle().await, ROOM)
    }

    async fn advance(&self, by: Duration) {
        self.behind.advance(by).await;
    }
}

impl Harness for CachedHarness<RedisHarness> {
    type Store = Cached<RedisStore>;

    async fn open() -> Self {
        let behind = RedisHarness::open().await;
        let store = Cached::new(behind.second_handle().await, ROOM);
        Self { store, behind }
    }

    fn store(&self) -> &Self::Store {
        &self.store
    }

    async fn second_handle(&self) -> Self::Store {
        Cached::new(self.behind.second_handle().await, ROOM)
    }

    /// What is stored moves back on the server, but this process's clock does not move on: the cache, which
    /// would go by it, is emptied. Its own expiry is tested in front of the memory store, where time is moved.
    async fn advance(&self, by: Duration) {
        self.behind.advance(by).await;
        self.store.clear();
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        self.store.clear();
        self.behind.corrupt(key, stored).await
    }
}

mod conformance_in_front_of_memory {
    idempotent_runtime::store_conformance!(super::CachedHarness<crate::memory::MemoryHarness>);
}

mod conformance_in_front_of_redis {
    idempotent_runtime::store_conformance!(super::CachedHarness<super::RedisHarness>, if super::installed());
}

/// A store with nothing in it.
fn empty() -> Counting {
    Counting::new(MemoryStore::new())
}

fn mine() -> Claim {
    new_claim(key(1))
}

/// A claim for something else with the same key.
fn another() -> Claim {
    let mut claim = mine();
    claim.fingerprint = Fingerprint::from_bytes([0xee; 32]);
    claim
}

async fn complete(store: &impl Store, claim: &Claim, outcome: &Outcome) {
    let acquired = store.acquire(claim).await.unwrap();
    assert!(
        matches!(acquired, Acquisition::Acquired { .. }),
        "{acquired:?}"
    );
    let write = store.complete(&claim.held(), outcome).await.unwrap();
    assert_eq!(write, Write::Applied);
}

/// Lets what was spawned run to its end.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_completed_here_replays_without_a_round_trip() {
    for outcome in [done(), Outcome::Tombstone] {
        let behind = empty();
        let store = Cached::new(behind.clone(), ROOM);
        complete(&store, &mine(), &outcome).await;
        behind.take();
        for _ in 0..100 {
            let again = store.acquire(&mine()).await.unwrap();
            assert_eq!(again, Acquisition::Completed(outcome.clone()));
        }
        assert_eq!(behind.take(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_completed_elsewhere_is_asked_for_once() {
    let behind = empty();
    complete(&behind, &mine(), &done()).await;
    let store = Cached::new(behind.clone(), ROOM);
    behind.take();
    for _ in 0..100 {
        let again = store.acquire(&mine()).await.unwrap();
        assert_eq!(again, Acquisition::Completed(done()));
        settle().await;
    }
    // The acquire that met it, and the question for how long it lives.
    assert_eq!(behind.take(), 2);
}

/// Many outcomes at once, as after a start, are no storm of questions: what is not asked for now is asked for later.
#[tokio::test(start_paused = true)]
async fn at_most_64_expiries_are_asked_for_at_a_time() {
    let behind = empty();
    for n in 0..100 {
        complete(&behind, &new_claim(key(n)), &done()).await;
    }
    let store = Cached::new(behind.clone(), ROOM);
    let ask_all = async || {
        behind.take();
        for n in 0..100 {
            let again = store.acquire(&new_claim(key(n))).await.unwrap();
            assert_eq!(again, Acquisition::Completed(done()));
        }
    };
    ask_all().await;
    settle().await;
    assert_eq!(behind.take(), 100 + 64);
    ask_all().await;
    settle().await;
    assert_eq!(behind.take(), 36 + 36, "the places are given back");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_beyond_its_expiry() {
    for elsewhere in [false, true] {
        let behind = empty();
        let store = Cached::new(behind.clone(), ROOM);
        // A hundred seconds of retention, of which it has used thirty before the cache hears of it.
        if elsewhere {
            complete(&behind, &mine(), &done()).await;
            tokio::time::advance(Duration::from_secs(30)).await;
            store.acquire(&mine()).await.unwrap();
            settle().await;
        } else {
            complete(&store, &mine(), &done()).await;
            tokio::time::advance(Duration::from_secs(30)).await;
        }
        tokio::time::advance(Duration::from_millis(69_800)).await;
        behind.take();
        let again = store.acquire(&mine()).await.unwrap();
        assert_eq!(again, Acquisition::Completed(done()));
        assert_eq!(behind.take(), 0, "kept until shortly before the end");
        tokio::time::advance(Duration::from_millis(250)).await;
        let next = store.acquire(&mine()).await.unwrap();
        assert!(matches!(next, Acquisition::Acquired { .. }), "{next:?}");
    }
}

/// A completion may be repeated long after the first one was applied; its outcome expires with the first.
#[tokio::test(start_paused = true)]
async fn a_repeated_completion_does_not_prolong_what_is_kept() {
    let store = Cached::new(empty(), ROOM);
    let owner = mine();
    store.acquire(&owner).await.unwrap();
    // The reply to this one was lost, so the cache knows nothing of it.
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
async fn another_request_is_a_mismatch_here_as_there() {
    let store = Cached::new(empty(), ROOM);
    complete(&store, &mine(), &done()).await;
    let other = another();
    assert_eq!(store.acquire(&other).await.unwrap(), Acquisition::Mismatch);
    assert_eq!(store.inner().take(), 2);
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_no_outcome_are_asked_for_each_time() {
    let behind = empty();
    let store = Cached::new(behind.clone(), ROOM);
    let owner = mine();
    store.acquire(&owner).await.unwrap();
    let other = another();
    behind.take();
    for _ in 0..3 {
        let answer = store.acquire(&mine()).await.unwrap();
        assert!(matches!(answer, Acquisition::InFlight { .. }), "{answer:?}");
        assert_eq!(store.acquire(&other).await.unwrap(), Acquisition::Mismatch);
    }
    tokio::time::advance(Duration::from_secs(11)).await;
    for _ in 0..3 {
        assert_eq!(store.acquire(&mine()).await.unwrap(), Acquisition::Unknown);
    }
    settle().await;
    assert_eq!(behind.take(), 9);
    // A release is an end without an outcome.
    assert_eq!(
        store.release(&key(1), &owner.token).await.unwrap(),
        Write::Applied
    );
    let next = store.acquire(&mine()).await.unwrap();
    assert_eq!(next, Acquisition::Acquired { attempt: 1 });
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_by_bytes() {
    let behind = empty();
    let store = Cached::new(behind.clone(), 64 << 10);
    let big = Outcome::Response(response(200, &[], &[0; 10 << 10]));
    for n in 0..100 {
        complete(&store, &new_claim(key(n)), &big).await;
    }
    // A response larger than all there is.
    let huge = Outcome::Response(response(200, &[], &vec![0; 100 << 10]));
    complete(&store, &new_claim(key(200)), &huge).await;
    behind.take();
    for n in 0..100 {
        let again = store.acquire(&new_claim(key(n))).await.unwrap();
        assert_eq!(again, Acquisition::Completed(big.clone()));
    }
    let again = store.acquire(&new_claim(key(200))).await.unwrap();
    assert_eq!(again, Acquisition::Completed(huge));
    assert!(
        behind.take() >= 101 - 6,
        "at most six responses of 10 KiB fit"
    );
}
