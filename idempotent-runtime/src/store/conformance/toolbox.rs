//! What the cases are written with: claims and responses to store, and operations that must not fail.

use super::{Harness, Subject};
use crate::{
    fingerprint::Fingerprint,
    response::{ResponseLimits, StoredResponse},
    scope::StoreKey,
    store::{
        erased::ErasedStore,
        record::{Acquisition, Claim, Held, Outcome, Record, RecordState, Write},
        token::Token,
    },
};

/// What most claims of the suite ask for.
pub(super) const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([0xf1; 32]);
/// How many ticks the suite's leases last.
pub(super) const LEASE: u32 = 10;
/// How many ticks the suite's outcomes are kept.
pub(super) const TTL: u32 = 100;
/// What a request with the same key and another body asks for.
pub(super) const OTHER_FINGERPRINT: Fingerprint = Fingerprint::from_bytes([0xf2; 32]);

/// The key made of this byte, 32 times.
#[must_use]
pub const fn key(byte: u8) -> StoreKey {
    StoreKey::from_bytes([byte; 32])
}

/// A claim with a token of its own, the suite's lease of ten ticks and its ttl of a hundred.
#[must_use]
pub fn claim<H: Harness>(key: StoreKey) -> Claim {
    Claim::new(
        key,
        FINGERPRINT,
        Token::random(),
        H::TICK * LEASE,
        H::TICK * TTL,
    )
}

/// A response as the engine would store it.
///
/// # Panics
///
/// If the parts are no valid response.
#[must_use]
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> StoredResponse {
    let response = headers.iter().fold(
        http::Response::builder().status(status),
        |response, (name, value)| response.header(*name, *value),
    );
    let (parts, ()) = response.body(()).expect("valid parts").into_parts();
    let limits = ResponseLimits {
        max_body: body.len(),
        ..ResponseLimits::default()
    };
    StoredResponse::encode(&parts, body, &limits).expect("a response within the limits")
}

/// An outcome that can be told from others by its body.
pub(super) fn answer(body: &str) -> Outcome {
    Outcome::Response(response(
        201,
        &[("content-type", "application/json")],
        body.as_bytes(),
    ))
}

pub(super) async fn acquire(store: &dyn ErasedStore, claim: &Claim) -> Acquisition {
    store.acquire(claim).await.expect("acquire")
}

/// Acquires the key, or fails the case.
#[track_caller]
pub(super) fn attempt(acquisition: &Acquisition) -> u32 {
    match acquisition {
        Acquisition::Acquired { attempt } => *attempt,
        other => panic!("must have acquired the key, but the answer was {other:?}"),
    }
}

#[track_caller]
pub(super) fn assert_in_flight(acquisition: &Acquisition) {
    assert!(
        matches!(acquisition, Acquisition::InFlight { .. }),
        "the lease is live, but the answer was {acquisition:?}"
    );
}

pub(super) async fn renew(store: &dyn ErasedStore, claim: &Claim) -> Write {
    store.renew(&claim.held()).await.expect("renew")
}

pub(super) async fn complete(store: &dyn ErasedStore, claim: &Claim, outcome: &Outcome) -> Write {
    store
        .complete(&claim.held(), outcome)
        .await
        .expect("complete")
}

pub(super) async fn release(store: &dyn ErasedStore, claim: &Claim) -> Write {
    store
        .release(&claim.key, &claim.token)
        .await
        .expect("release")
}

pub(super) async fn abandon(store: &dyn ErasedStore, claim: &Claim) -> Write {
    store
        .abandon(&claim.key, &claim.token)
        .await
        .expect("abandon")
}

pub(super) async fn get(store: &dyn ErasedStore, key: StoreKey) -> Option<Record> {
    store.get(&key).await.expect("get")
}

pub(super) async fn purge(store: &dyn ErasedStore, limit: usize) -> usize {
    store.purge_expired(limit).await.expect("purge_expired")
}

/// Purges until nothing is left to purge.
pub(super) async fn purge_all(store: &dyn ErasedStore) {
    for _ in 0..100 {
        if purge(store, 100).await == 0 {
            return;
        }
    }
    panic!("after a hundred purges there is nothing left to purge");
}

/// Acquires a new key and stores an outcome under it.
pub(super) async fn completed(subject: &Subject, key: StoreKey, outcome: &Outcome) -> Claim {
    let claim = subject.claim(key);
    attempt(&acquire(subject.store(), &claim).await);
    assert_eq!(
        complete(subject.store(), &claim, outcome).await,
        Write::Applied
    );
    claim
}

/// Acquires a new key and lets the lease lapse.
pub(super) async fn lapsed(subject: &Subject, key: StoreKey) -> Claim {
    let claim = subject.claim(key);
    attempt(&acquire(subject.store(), &claim).await);
    subject.advance(subject.ticks(LEASE + 1)).await;
    claim
}

/// Everything about a record that only a write may change.
pub(super) async fn fixed(
    store: &dyn ErasedStore,
    key: StoreKey,
) -> Option<(Fingerprint, u32, Option<Outcome>)> {
    let record = get(store, key).await?;
    let outcome = match record.state {
        RecordState::Completed(outcome) => Some(outcome),
        RecordState::InFlight { .. } => None,
    };
    Some((record.fingerprint, record.attempt, outcome))
}

/// The claim's lease with another token: what an execution holds that was fenced out.
pub(super) fn stranger(claim: &Claim) -> Held {
    Held {
        token: Token::random(),
        ..claim.held()
    }
}
