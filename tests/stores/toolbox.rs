//! What the tests of several stores are written with.

use std::time::{Duration, Instant};

use idempotent_runtime::{
    StoreKey,
    store::{
        Acquisition, Claim, Outcome, StoreError,
        conformance::{claim, response},
    },
};

use crate::memory::Memory;

/// The answer to the acquire of a key that has no record.
pub(crate) const FIRST: Acquisition = Acquisition::Acquired { attempt: 1 };

/// After this, what is bound to happen does not. Generous, because a loaded machine is slow.
const TOO_LATE: Duration = Duration::from_secs(30);

/// A claim with a token of its own, ten seconds of lease and a hundred of ttl.
pub(crate) fn new_claim(key: StoreKey) -> Claim {
    // The suite's claim, which is the same for all stores: none here has ticks of its own.
    claim::<Memory>(key)
}

/// A small response to store.
pub(crate) fn done() -> Outcome {
    Outcome::Response(response(201, &[], b"done"))
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
pub(crate) async fn answered<T, F>(mut operation: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
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
pub(crate) async fn eventually(
    mut happened: impl AsyncFnMut() -> bool,
    instead: impl Fn() -> String,
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
pub(crate) async fn within(bound: Duration, measure: impl AsyncFn() -> Vec<Duration>) {
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
