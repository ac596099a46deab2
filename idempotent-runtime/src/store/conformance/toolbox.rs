//! What the cases are made of: keys, claims, responses, and operations that must not fail.

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

/// The fingerprint of most claims in the suite.
pub(super) const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([0xf1; 32]);
/// The lease of the suite's claims, in ticks.
pub(super) const LEASE: u32 = 10;
/// The ttl of the suite's claims, in ticks.
pub(super) const TTL: u32 = 100;
/// The fingerprint of a request with the same key and another body.
pub(super) const OTHER_FINGERPRINT: Fingerprint = Fingerprint::from_bytes([0xf2; 32]);

/// The key of 32 times this byte.
#[must_use]
pub const fn key(byte: u8) -> StoreKey {
    StoreKey::from_bytes([byte; 32])
}

/// A claim with a new token, a lease of ten ticks and a ttl of a hundred.
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
/// If the parts are not a valid response.
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
    StoredResponse::encode(&parts, body, &limits, None, None).expect("a response within the limits")
}

/// A response with this body: outcomes with different bodies differ.
pub(super) fn outcome_with(body: &str) -> Outcome {
    Outcome::Response(response(
        201,
        &[("content-type", "application/json")],
        body.as_bytes(),
    ))
}

pub(super) async fn acquire(store: &dyn ErasedStore, claim: &Claim) -> Acquisition {
    store.acquire(claim).await.expect("acquire")
}

/// The attempt that was acquired; fails the case if none was.
#[track_caller]
pub(super) fn attempt(acquisition: &Acquisition) -> u32 {
    match acquisition {
        Acquisition::Acquired { attempt } => *attempt,
        other => panic!("expected the key to be acquired, but the answer was {other:?}"),
    }
}

#[track_caller]
pub(super) fn assert_in_flight(acquisition: &Acquisition) {
    assert!(
        matches!(acquisition, Acquisition::InFlight { .. }),
        "expected a live lease, but the answer was {acquisition:?}"
    );
}

/// The token of the lease that lapsed, as the answer names it.
#[track_caller]
pub(super) fn assert_unknown(acquisition: &Acquisition) -> Token {
    match acquisition {
        Acquisition::Unknown { lease, .. } => *lease,
        other => panic!("expected unknown, not {other:?}"),
    }
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

/// Purges until a purge deletes nothing.
pub(super) async fn purge_all(store: &dyn ErasedStore) {
    for _ in 0..100 {
        if purge(store, 100).await == 0 {
            return;
        }
    }
    panic!("a hundred purges in a row deleted records");
}

/// Acquires a new key and completes it with this outcome.
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

/// The parts of a record that only a write may change.
pub(super) async fn snapshot(
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

/// The claim's lease with another token, as an execution holds it that was fenced.
pub(super) fn with_another_token(claim: &Claim) -> Held {
    Held {
        token: Token::random(),
        ..claim.held()
    }
}
