//! What the tests of several stores are written with.

use std::time::{Duration, Instant};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, LocalBoxFuture, join_all},
};
use idempotent_runtime::{
    StoreKey,
    store::{
        Acquisition, Claim, Outcome, Store, StoreError, Write,
        conformance::{claim, response},
    },
};

use crate::memory::MemoryHarness;

/// The answer to the acquire of a key that has no record.
pub(crate) const FIRST: Acquisition = Acquisition::Acquired { attempt: 1 };

/// After this, what is bound to happen does not. Generous, because a loaded machine is slow.
const TOO_LATE: Duration = Duration::from_secs(30);

/// A claim with a token of its own, ten seconds of lease and a hundred of ttl.
pub(crate) fn new_claim(key: StoreKey) -> Claim {
    // The suite's claim, which is the same for all stores: none here has ticks of its own.
    claim::<MemoryHarness>(key)
}

/// A small response to store.
pub(crate) fn done() -> Outcome {
    Outcome::Response(response(201, &[], b"done"))
}

/// A response to store with a body of this many bytes.
pub(crate) fn large(bytes: usize) -> Outcome {
    Outcome::Response(response(200, &[], &vec![7; bytes]))
}

/// Acquires a new key and completes it.
pub(crate) async fn execute(store: &impl Store, claim: &Claim, outcome: &Outcome) {
    assert_eq!(store.acquire(claim).await.unwrap(), FIRST);
    let completed = store.complete(&claim.held(), outcome).await;
    assert_eq!(completed.unwrap(), Write::Applied);
}

/// A request with this key gets this outcome.
pub(crate) async fn replays(store: &impl Store, key: StoreKey, outcome: &Outcome) {
    let answer = store.acquire(&new_claim(key)).await;
    assert_eq!(answer.unwrap(), Acquisition::Completed(outcome.clone()));
}

/// Acquires these keys at once, one claim each.
pub(crate) async fn acquire_all(
    store: &impl Store,
    keys: impl IntoIterator<Item = StoreKey>,
) -> Vec<Result<Acquisition, StoreError>> {
    let claims: Vec<_> = keys.into_iter().map(new_claim).collect();
    let acquiring = claims.iter().map(|claim| store.acquire(claim).boxed());
    join_all(acquiring.collect::<Vec<_>>()).await
}

#[track_caller]
pub(crate) fn assert_in_flight(answer: &Acquisition) {
    assert!(matches!(answer, Acquisition::InFlight { .. }), "{answer:?}");
}

/// An error and all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        chain = format!("{chain}: {error}");
        cause = error.source();
    }
    chain
}

/// Repeats an operation until the store answers, as the engine and its clients do, up to a limit.
pub(crate) fn answered<'a, T: 'a, F>(
    mut operation: impl FnMut() -> F + Send + 'a,
) -> BoxFuture<'a, T>
where
    F: Future<Output = Result<T, StoreError>> + Send + 'a,
{
    repeated(Box::new(move || operation().boxed())).boxed()
}

/// [`answered`], compiled once for each type of answer and not for each call.
async fn repeated<'a, T>(
    mut operation: Box<dyn FnMut() -> BoxFuture<'a, Result<T, StoreError>> + Send + 'a>,
) -> T {
    let begun = Instant::now();
    loop {
        let error = match tokio::time::timeout(Duration::from_secs(2), operation()).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => format!("{error:?}"),
            Err(elapsed) => elapsed.to_string(),
        };
        assert!(begun.elapsed() < TOO_LATE, "{error} for {TOO_LATE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for what is bound to happen, up to a limit; `instead` says what is found in its place.
pub(crate) fn eventually<'a, F>(
    mut happened: impl FnMut() -> F + 'a,
    instead: impl Fn() -> String + 'a,
) -> LocalBoxFuture<'a, ()>
where
    F: Future<Output = bool> + 'a,
{
    waiting(
        Box::new(move || happened().boxed_local()),
        Box::new(instead),
    )
    .boxed_local()
}

/// [`eventually`], compiled once and not for each call.
async fn waiting<'a>(
    mut happened: Box<dyn FnMut() -> LocalBoxFuture<'a, bool> + 'a>,
    instead: Box<dyn Fn() -> String + 'a>,
) {
    let begun = Instant::now();
    while !happened().await {
        assert!(
            begun.elapsed() < TOO_LATE,
            "{} after {TOO_LATE:?}",
            instead()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Measures until every duration of one measurement is within the bound, three times at most: a machine that runs other
/// tests beside this one stalls now and then.
pub(crate) fn within<'a, F>(
    bound: Duration,
    mut measure: impl FnMut() -> F + 'a,
) -> LocalBoxFuture<'a, ()>
where
    F: Future<Output = Vec<Duration>> + 'a,
{
    measured(bound, Box::new(move || measure().boxed_local())).boxed_local()
}

/// [`within`], compiled once and not for each call.
async fn measured<'a>(
    bound: Duration,
    mut measure: Box<dyn FnMut() -> LocalBoxFuture<'a, Vec<Duration>> + 'a>,
) {
    let mut measured = Vec::new();
    for _ in 0..3 {
        let durations = measure().await;
        let in_time = durations.iter().all(|duration| *duration < bound);
        measured.push(durations);
        if in_time {
            return;
        }
    }
    panic!("no measurement is within {bound:?}: {measured:?}");
}
