//! What only this store promises: its bounds, its counts and its wakes. The conformance suite tests the contract.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::advance;

use super::{MemoryStore, Usage};
use crate::{
    fingerprint::Fingerprint,
    response::{ResponseLimits, StoredResponse},
    scope::StoreKey,
    store::{
        Store,
        error::StoreErrorKind,
        record::{Acquisition, Claim, Outcome, RecordState, Write},
        token::Token,
        wake::Wake,
    },
};

const LEASE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(100);

#[tokio::test(start_paused = true)]
async fn at_the_bound_on_records_only_new_keys_are_refused() {
    let store = MemoryStore::builder().max_records(2).build();
    let (first, second) = (claim(1), claim(2));
    acquire(&store, &first).await;
    acquire(&store, &second).await;

    assert_full(&store, &claim(3)).await;
    assert_eq!(store.renew(&first.held()).await.unwrap(), Write::Applied);
    complete(&store, &first, 100).await;
    let again = acquire(&store, &claim(1)).await;
    assert!(
        matches!(again, Acquisition::Completed(_)),
        "an existing record is served: {again:?}"
    );
    assert_full(&store, &claim(3)).await;

    assert_eq!(
        store.release(&second.key, &second.token).await.unwrap(),
        Write::Applied
    );
    acquired(&store, &claim(3)).await;
    assert_eq!(store.len(), 2);
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_on_bytes_only_new_keys_are_refused() {
    let store = MemoryStore::builder().max_bytes(1_000).build();
    let (first, second) = (claim(1), claim(2));
    acquire(&store, &first).await;
    acquire(&store, &second).await;
    complete(&store, &first, 1_000).await;
    let bytes = store.usage().bytes;
    assert!(bytes > 1_000, "body and headers are counted, not {bytes}");

    assert_full(&store, &claim(3)).await;
    // A completion is never refused: the execution is over.
    complete(&store, &second, 1_000).await;
    assert_eq!(store.usage().bytes, 2 * bytes);
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn at_a_bound_expired_records_make_room() {
    let store = MemoryStore::builder().max_records(100).build();
    for n in 0..100 {
        let claim = claim(n);
        acquire(&store, &claim).await;
        complete(&store, &claim, 10).await;
    }
    assert_full(&store, &claim(100)).await;
    advance(TTL).await;
    for n in 100..200 {
        acquired(&store, &claim(n)).await;
    }
    assert_eq!(store.len(), 100);
    assert_eq!(store.usage().bytes, 0);
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn if_chosen_the_completed_record_that_expires_first_is_evicted() {
    let store = MemoryStore::builder()
        .max_records(3)
        .evict_oldest_completed()
        .build();
    let unknown = claim(1);
    acquire(&store, &unknown).await;
    assert_eq!(
        store.abandon(&unknown.key, &unknown.token).await.unwrap(),
        Write::Applied
    );
    for n in [2, 3] {
        advance(Duration::from_secs(1)).await;
        let done = claim(n);
        acquire(&store, &done).await;
        complete(&store, &done, 10).await;
    }
    acquired(&store, &claim(4)).await;
    assert!(
        store.get(&claim(2).key).await.unwrap().is_none(),
        "the oldest outcome made room"
    );
    assert!(store.get(&claim(3).key).await.unwrap().is_some());
    acquired(&store, &claim(5)).await;
    // An unknown outcome and two live leases are left.
    assert_full(&store, &claim(6)).await;
    let seen = acquire(&store, &claim(1)).await;
    assert!(matches!(seen, Acquisition::Unknown { .. }), "{seen:?}");
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn evictions_make_room_for_bytes_too() {
    let store = MemoryStore::builder()
        .max_bytes(5_000)
        .evict_oldest_completed()
        .build();
    for n in 0..100 {
        let claim = claim(n);
        acquired(&store, &claim).await;
        complete(&store, &claim, 1_000).await;
    }
    assert!(store.usage().bytes < 7_000, "{:?}", store.usage());
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn a_store_with_a_bound_of_zero_refuses_every_key() {
    let store = MemoryStore::builder()
        .max_records(0)
        .evict_oldest_completed()
        .build();
    assert_full(&store, &claim(1)).await;
    assert!(store.is_empty());
}

#[tokio::test(start_paused = true)]
async fn acquire_and_release_of_one_key_leave_nothing_behind() {
    let store = MemoryStore::new();
    for _ in 0..1_000 {
        let claim = claim(1);
        acquired(&store, &claim).await;
        assert_eq!(store.renew(&claim.held()).await.unwrap(), Write::Applied);
        assert_eq!(
            store.release(&claim.key, &claim.token).await.unwrap(),
            Write::Applied
        );
        store.audit();
    }
    assert!(store.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_store_in_use_needs_no_purge() {
    let store = MemoryStore::new();
    for n in 0..10_000 {
        let claim = claim(n);
        acquired(&store, &claim).await;
        complete(&store, &claim, 10).await;
        advance(Duration::from_secs(1)).await;
    }
    // A hundred records are alive, and each of the 64 shards of the index may lag behind by a few.
    assert!(store.len() < 400, "{} records", store.len());
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn renewals_of_a_long_execution_keep_the_index_consistent() {
    let store = MemoryStore::new();
    let claim = claim(1);
    acquired(&store, &claim).await;
    for _ in 0..100 {
        advance(Duration::from_secs(9)).await;
        assert_eq!(store.renew(&claim.held()).await.unwrap(), Write::Applied);
        assert_eq!(store.purge_expired(10).await.unwrap(), 0);
        store.audit();
    }
    complete(&store, &claim, 10).await;
    store.audit();
    advance(TTL).await;
    assert_eq!(store.purge_expired(10).await.unwrap(), 1);
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn the_longest_durations_do_not_overflow() {
    let store = MemoryStore::new();
    advance(Duration::from_secs(1)).await;
    let claim = Claim {
        lease: Duration::MAX,
        ttl: Duration::MAX,
        ..claim(1)
    };
    acquired(&store, &claim).await;
    assert_eq!(store.renew(&claim.held()).await.unwrap(), Write::Applied);
    complete(&store, &claim, 10).await;
    advance(Duration::from_secs(1_000_000)).await;
    assert_eq!(store.purge_expired(10).await.unwrap(), 0);
    assert!(store.get(&claim.key).await.unwrap().is_some());
}

/// With a bound of 10,000 each shard takes room for nine records at a time.
#[tokio::test(start_paused = true)]
async fn room_that_other_shards_hold_is_found_before_a_key_is_refused() {
    let store = MemoryStore::builder().max_records(10_000).build();
    let claims: Vec<_> = (0..10_000).map(claim).collect();
    for claim in &claims {
        acquired(&store, claim).await;
    }
    assert_full(&store, &claim(10_000)).await;
    store.audit();
    // One key a shard makes room that every shard can use.
    for claim in &claims[..64] {
        let released = store.release(&claim.key, &claim.token).await.unwrap();
        assert_eq!(released, Write::Applied);
    }
    let mut same_shard = (10_000..u16::MAX).filter(|n| n % 256 == 3).map(claim);
    for claim in same_shard.by_ref().take(64) {
        acquired(&store, &claim).await;
    }
    assert_full(&store, &same_shard.next().unwrap()).await;
    assert_eq!(store.len(), 10_000);
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn claims_also_delete_what_expired_in_flight() {
    let store = MemoryStore::new();
    for n in 0..1_000 {
        acquired(&store, &claim(n)).await;
    }
    // The first look of a shard finds that each was renewed, and the time at which the next one is worth it.
    advance(LEASE + TTL).await;
    for n in 1_000..1_256 {
        acquired(&store, &claim(n)).await;
    }
    assert_eq!(store.len(), 256, "none of the thousand is left");
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn records_of_many_ttls_expire_each_at_its_time() {
    let store = MemoryStore::new();
    for n in 0..2_000 {
        let ttl = Duration::from_secs(u64::from(n % 20) + 1);
        let claim = Claim { ttl, ..claim(n) };
        acquired(&store, &claim).await;
        complete(&store, &claim, 10).await;
    }
    for left in (0..20).rev() {
        advance(Duration::from_secs(1)).await;
        assert_eq!(store.purge_expired(usize::MAX).await.unwrap(), 100);
        assert_eq!(store.len(), left * 100);
        store.audit();
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_expired_and_completed_again_expires_at_its_new_time() {
    let store = MemoryStore::new();
    let first = claim(1);
    acquired(&store, &first).await;
    complete(&store, &first, 10).await;
    advance(TTL).await;
    let second = claim(1);
    let again = acquire(&store, &second).await;
    assert_eq!(again, Acquisition::Acquired { attempt: 2 });
    complete(&store, &second, 20).await;
    advance(TTL / 2).await;
    assert_eq!(store.purge_expired(10).await.unwrap(), 0);
    store.audit();
    advance(TTL / 2).await;
    assert_eq!(store.purge_expired(10).await.unwrap(), 1);
    assert_eq!(
        store.usage(),
        Usage {
            records: 0,
            bytes: 0
        }
    );
    store.audit();
}

#[tokio::test(start_paused = true)]
async fn a_replay_shares_the_stored_bytes() {
    let store = MemoryStore::new();
    let claim = claim(1);
    acquired(&store, &claim).await;
    complete(&store, &claim, 1_000).await;
    let record = store.get(&claim.key).await.unwrap().unwrap();
    let RecordState::Completed(Outcome::Response(shown)) = record.state else {
        panic!("completed")
    };
    let Acquisition::Completed(Outcome::Response(replayed)) = acquire(&store, &claim).await else {
        panic!("completed")
    };
    assert_eq!(shown.as_bytes().as_ptr(), replayed.as_bytes().as_ptr());
}

#[tokio::test(start_paused = true)]
async fn every_engine_is_woken_at_every_end_of_a_lease() {
    let store = MemoryStore::new();
    let wakes: [Arc<AtomicUsize>; 3] = std::array::from_fn(|_| Arc::default());
    for woken in &wakes {
        let (woken, seen) = (Arc::clone(woken), store.clone());
        store.attach(Wake::new(move |key| {
            // No lock is held: a waiter that is woken may read the record at once.
            let shared = &seen.shared;
            let found = shared.table.get(key.unwrap(), 0, &shared.clock);
            assert!(found.is_some() || seen.is_empty());
            woken.fetch_add(1, Ordering::Relaxed);
        }));
    }
    let claim = claim(1);
    acquired(&store, &claim).await;
    store.abandon(&claim.key, &claim.token).await.unwrap();
    complete(&store, &claim, 10).await;
    store.abandon(&claim.key, &claim.token).await.unwrap();
    store.release(&claim.key, &Token::random()).await.unwrap();
    for woken in &wakes {
        assert_eq!(
            woken.load(Ordering::Relaxed),
            2,
            "once abandoned, once completed"
        );
    }
}

#[tokio::test]
async fn an_engine_that_is_gone_is_forgotten_when_another_attaches() {
    let store = MemoryStore::new();
    let stays = Arc::new(());
    store.attach(Wake::of_engine(&stays, |(), _| ()));
    for _ in 0..100 {
        let goes = Arc::new(());
        store.attach(Wake::of_engine(&goes, |(), _| ()));
    }
    store.attach(Wake::of_engine(&stays, |(), _| ()));
    assert!(store.shared.wakes.lens().iter().all(|len| *len == 2));
}

async fn acquire(store: &MemoryStore, claim: &Claim) -> Acquisition {
    store.acquire(claim).await.unwrap()
}

async fn acquired(store: &MemoryStore, claim: &Claim) {
    assert_eq!(
        acquire(store, claim).await,
        Acquisition::Acquired { attempt: 1 }
    );
}

async fn assert_full(store: &MemoryStore, claim: &Claim) {
    let error = store.acquire(claim).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Full);
    assert!(!error.is_transient());
}

/// DESIGN.md, section 11.
#[test]
fn the_default_bounds_are_those_of_the_contract() {
    let builder = MemoryStore::builder();
    assert_eq!(builder.limits.records, 1_000_000);
    assert_eq!(builder.limits.bytes, 1024 * 1024 * 1024);
    assert!(!builder.evict);
}

async fn complete(store: &MemoryStore, claim: &Claim, body: usize) {
    let (head, ()) = http::Response::new(()).into_parts();
    let response = StoredResponse::encode(
        &head,
        &vec![b'x'; body],
        &ResponseLimits::default(),
        None,
        None,
    )
    .unwrap();
    let write = store
        .complete(&claim.held(), &Outcome::Response(response))
        .await
        .unwrap();
    assert_eq!(write, Write::Applied);
}

fn claim(n: u16) -> Claim {
    let mut key = [0; 32];
    key[0] = n.to_be_bytes()[1];
    key[1] = n.to_be_bytes()[0];
    Claim::new(
        StoreKey::from_bytes(key),
        Fingerprint::from_bytes([7; 32]),
        Token::random(),
        LEASE,
        TTL,
    )
}
