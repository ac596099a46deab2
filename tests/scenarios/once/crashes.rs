//! Operations whose process crashes, that do not know, or whose store fails.

use idempotent_runtime::{Step, StepError};

use super::*;

fn retrying() -> Policy {
    Policy::new().on_crash(OnCrash::Retry)
}

/// Begins an operation in a process that crashes while it runs.
async fn crash_in(store: &MemoryStore) {
    let process = Process::start(Idempotency::builder(), store.clone());
    let begun = Arc::new(Notify::new());
    let signal = Arc::clone(&begun);
    let once = process.engine.once("charges", "k");
    let mut call = Box::pin(once.run(async move |_| {
        signal.notify_one();
        pending::<Result<usize, NotDone<Declined>>>().await
    }));
    assert!(poll_once(call.as_mut()).await.is_none());
    begun.notified().await;
    process.cut_off();
    std::mem::forget(call);
    advance(Duration::from_secs(31)).await;
}

#[test]
fn after_a_crash_the_outcome_is_unknown_and_nothing_runs() {
    with_paused_clock(async {
        let (store, effects) = (MemoryStore::new(), Effects::default());
        crash_in(&store).await;
        let next = Process::start(Idempotency::builder(), store);
        let ended = charge(next.engine.once("charges", "k"), &effects).await;
        assert_eq!(code(&ended), ProblemCode::OutcomeUnknown);
        assert!(ended.unwrap_err().is_retryable());
        assert_eq!(effects.count(), 0);
    });
}

#[test]
fn with_retry_the_next_call_is_the_second_attempt() {
    with_paused_clock(async {
        let store = MemoryStore::new();
        crash_in(&store).await;
        let next = Process::start(Idempotency::builder(), store);
        let once = next.engine.once("charges", "k").policy(retrying());
        let attempt = once.run(async |execution| Ok::<_, NotDone<()>>(execution.attempt()));
        assert_eq!(attempt.await.unwrap(), 2);
    });
}

#[test]
fn what_is_not_known_is_treated_as_a_crash() {
    with_paused_clock(async {
        for retry in [false, true] {
            let (engine, effects) = (engine(), Effects::default());
            let policy = if retry { retrying() } else { Policy::new() };
            let ended: Ended = engine
                .once("charges", "k")
                .policy(policy.clone())
                .run(async |_| Err(NotDone::Unknown("timed out".into())))
                .await;
            assert!(matches!(ended.unwrap_err(), OnceError::Unknown(_)));
            let once = engine.once("charges", "k").policy(policy);
            let ended = charge(once, &effects).await;
            if retry {
                assert_eq!(ended.unwrap(), 1);
            } else {
                assert_eq!(code(&ended), ProblemCode::OutcomeUnknown);
            }
        }
    });
}

#[test]
fn the_next_attempt_gets_the_steps_and_an_error_of_a_step_leaves_the_outcome_unknown() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        let attempt = |fails: bool| {
            let counted = effects.clone();
            engine
                .once("charges", "k")
                .policy(retrying())
                .run(async move |execution| {
                    let reserved: usize = execution
                        .step("reserve", async || {
                            Ok::<_, StepError<std::fmt::Error>>(counted.add())
                        })
                        .await
                        .map_err(|error| NotDone::Unknown(error.into()))?;
                    execution
                        .step("charge", async move |_: Step| {
                            if fails {
                                Err(std::fmt::Error)
                            } else {
                                Ok(reserved)
                            }
                        })
                        .await
                        .map_err(NotDone::<Declined>::from)
                })
        };
        let error = attempt(true).await.unwrap_err();
        assert!(matches!(error, OnceError::Unknown(_)), "{error:?}");
        assert_eq!(attempt(false).await.unwrap(), 1);
        assert_eq!(effects.count(), 1);
    });
}

#[test]
fn without_the_store_nothing_runs() {
    with_paused_clock(async {
        let store = FaultyStore::new();
        let engine = Idempotency::builder().store(store.clone());
        let (engine, effects) = (engine.build().unwrap(), Effects::default());
        store.fail_always(
            Operation::Acquire,
            Fault::Error(StoreErrorKind::Unavailable),
        );
        let ended = charge(engine.once("charges", "k"), &effects).await;
        assert_eq!(code(&ended), ProblemCode::StoreUnavailable);
        assert!(ended.unwrap_err().is_retryable());
        assert_eq!(effects.count(), 0);
    });
}
