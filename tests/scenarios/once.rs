//! Operations without HTTP: `Idempotency::once` (DESIGN.md, section 14).

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::post};
use idempotent_runtime::{
    Builder, Cache, FingerprintRule, Idempotency, IdempotencyLayer, KeyError, MemoryStore, NotDone,
    OnCrash, Once, OnceError, Policy, ProblemCode, Profile, Scope, scope, store::StoreErrorKind,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::support::{
    Fault, FaultyStore, Operation, Process, TestRequest, advance, poll_once, run_ready_tasks, send,
    with_paused_clock,
};

mod crashes;
mod http;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Declined {
    NoFunds,
}

type Ended = Result<usize, OnceError<Declined>>;

/// What operations have done. Clones share it.
#[derive(Clone, Default)]
struct Effects(Arc<AtomicUsize>);

impl Effects {
    fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn engine() -> Idempotency {
    Idempotency::builder()
        .store(MemoryStore::new())
        .build()
        .unwrap()
}

/// Runs an operation that has an effect and returns its number.
async fn charge(once: Once, effects: &Effects) -> Ended {
    let effects = effects.clone();
    once.run(async move |_| Ok(effects.add())).await
}

fn code(ended: &Ended) -> ProblemCode {
    match ended {
        Err(OnceError::Problem(problem)) => problem.code(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everybody_gets_the_outcome_of_the_one_execution() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        for _ in 0..3 {
            let ended = charge(engine.once("charges", "k"), &effects).await;
            assert_eq!(ended.unwrap(), 1);
        }
        // Another key and another endpoint are other operations.
        let ended = charge(engine.once("charges", "other"), &effects).await;
        assert_eq!(ended.unwrap(), 2);
        let ended = charge(engine.once("refunds", "k"), &effects).await;
        assert_eq!(ended.unwrap(), 3);
    });
}

#[test]
fn calls_at_the_same_time_execute_once_and_wait() {
    with_paused_clock(async {
        let (engine, effects, gate) = (engine(), Effects::default(), Arc::new(Semaphore::new(0)));
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let (effects, gate) = (effects.clone(), Arc::clone(&gate));
                tokio::spawn(engine.once("charges", "k").run(async move |_| {
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, NotDone<Declined>>(effects.add())
                }))
            })
            .collect();
        run_ready_tasks().await;
        gate.add_permits(1);
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), 1);
        }
        assert_eq!(effects.count(), 1);
    });
}

#[test]
fn without_waiting_a_call_meanwhile_is_a_conflict_that_may_be_repeated() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        let first = engine.once("charges", "k");
        let running = tokio::spawn(first.run(async |_| pending::<Result<(), NotDone<()>>>().await));
        run_ready_tasks().await;
        let once = engine
            .once("charges", "k")
            .policy(Policy::new().wait(false));
        let error = charge(once, &effects).await.unwrap_err();
        assert!(error.is_retryable());
        let problem = error.problem().unwrap();
        assert_eq!(problem.code(), ProblemCode::Conflict);
        assert!(problem.retry_after().unwrap() >= Duration::from_secs(1));
        assert_eq!(effects.count(), 0);
        running.abort();
    });
}

#[test]
fn a_failure_for_good_is_the_outcome_whatever_the_policy_keeps() {
    with_paused_clock(async {
        for cache in [Cache::All, Cache::Success] {
            let (engine, effects) = (engine(), Effects::default());
            for _ in 0..2 {
                let counted = effects.clone();
                let once = engine.once("charges", "k");
                let ended = once
                    .policy(Policy::new().cache(cache))
                    .run(async move |_| {
                        counted.add();
                        Err::<usize, _>(NotDone::Failed(Declined::NoFunds))
                    })
                    .await;
                let error = ended.unwrap_err();
                assert!(!error.is_retryable());
                assert!(matches!(error, OnceError::Failed(Declined::NoFunds)));
            }
            assert_eq!(effects.count(), 1);
        }
    });
}

#[test]
fn what_did_nothing_runs_again() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        let ended: Ended = engine
            .once("charges", "k")
            .run(async |_| Err(NotDone::Nothing("the ledger is closed".into())))
            .await;
        let error = ended.unwrap_err();
        assert!(error.is_retryable());
        assert!(
            matches!(error, OnceError::Nothing(why) if why.to_string() == "the ledger is closed")
        );
        let ended = charge(engine.once("charges", "k"), &effects).await;
        assert_eq!(ended.unwrap(), 1);
    });
}

#[test]
fn a_command_is_compared_by_what_its_json_means() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        let command = |pairs: &[(&str, u32)]| -> HashMap<String, u32> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
        };
        let names: Vec<String> = (0..32).map(|n| format!("item{n}")).collect();
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        // Each map has an order of its own.
        for _ in 0..8 {
            let once = engine.once("orders", "k").fingerprint(&command(&pairs));
            assert_eq!(charge(once, &effects).await.unwrap(), 1);
        }
        let once = engine
            .once("orders", "k")
            .fingerprint(&command(&pairs[1..]));
        let ended = charge(once, &effects).await;
        assert_eq!(code(&ended), ProblemCode::Mismatch);
        assert!(!ended.unwrap_err().is_retryable());
        assert_eq!(effects.count(), 1);
    });
}

#[test]
fn a_command_without_a_form_in_json_executes_nothing() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        let command = HashMap::from([((1, 2), 3)]);
        let once = engine.once("orders", "k").fingerprint(&command);
        let error = charge(once, &effects).await.unwrap_err();
        assert!(matches!(error, OnceError::Command(_)));
        assert_eq!(effects.count(), 0);
    });
}

#[test]
fn keys_are_unique_within_one_caller() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        let callers = [None, Some(""), Some("a"), Some("b")];
        for (n, caller) in callers.into_iter().enumerate() {
            for _ in 0..2 {
                let mut once = engine.once("charges", "k");
                if let Some(caller) = caller {
                    once = once.caller(&Scope::new(caller));
                }
                assert_eq!(charge(once, &effects).await.unwrap(), n + 1, "{caller:?}");
            }
        }
    });
}

#[test]
fn a_bad_key_is_refused_and_executes_nothing() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        for key in ["", "   ", "é", &"k".repeat(256)] {
            let ended = charge(engine.once("charges", key), &effects).await;
            assert_eq!(code(&ended), ProblemCode::InvalidKey);
            let error = ended.unwrap_err();
            assert!(!error.is_retryable());
            let why = idempotent_runtime::IdempotencyKey::new(key).unwrap_err();
            assert_ne!(why, KeyError::Missing);
            assert!(error.to_string().contains(&why.to_string()), "{error}");
        }
        assert_eq!(effects.count(), 0);
    });
}

#[test]
fn an_operation_whose_caller_leaves_goes_on() {
    with_paused_clock(async {
        let (engine, effects, begun) = (engine(), Effects::default(), Arc::new(Notify::new()));
        let (counted, signal) = (effects.clone(), Arc::clone(&begun));
        let call = tokio::spawn(engine.once("charges", "k").run(async move |_| {
            signal.notify_one();
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok::<_, NotDone<Declined>>(counted.add())
        }));
        begun.notified().await;
        call.abort();
        let ended = charge(engine.once("charges", "k"), &effects).await;
        assert_eq!(ended.unwrap(), 1);
        assert_eq!(effects.count(), 1);
    });
}

#[test]
fn an_operation_that_is_not_awaited_does_nothing() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        let never = charge(engine.once("charges", "k"), &effects);
        drop(never);
        run_ready_tasks().await;
        assert_eq!(effects.count(), 0);
    });
}

#[test]
fn a_panic_is_an_outcome() {
    with_paused_clock(async {
        for profile in [Profile::Default, Profile::Stripe] {
            let engine = Idempotency::builder().profile(profile).build().unwrap();
            for _ in 0..2 {
                let once = engine.once("charges", "k");
                let ended: Ended = once.run(async |_| panic!("a fault")).await;
                assert_eq!(code(&ended), ProblemCode::HandlerPanicked);
                assert!(!ended.unwrap_err().is_retryable());
            }
        }
    });
}

#[test]
fn an_outcome_of_another_type_is_an_error_and_stays_stored() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        charge(engine.once("charges", "k"), &effects).await.unwrap();
        let once = engine.once("charges", "k");
        let ended: Result<String, OnceError<Declined>> =
            once.run(async |_| Ok(String::new())).await;
        assert!(matches!(ended.unwrap_err(), OnceError::Outcome(_)));
        assert_eq!(
            charge(engine.once("charges", "k"), &effects).await.unwrap(),
            1
        );
    });
}

#[test]
fn an_outcome_without_a_form_in_json_is_known_to_nobody() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        let counted = effects.clone();
        let ended = engine.once("charges", "k").run(async move |_| {
            counted.add();
            Ok::<_, NotDone<Declined>>(vec![(HashMap::from([((1, 2), 3)]))])
        });
        let error = ended.await.unwrap_err();
        assert!(matches!(error, OnceError::Outcome(_)));
        assert!(!error.is_retryable());
        let ended = charge(engine.once("charges", "k"), &effects).await;
        assert_eq!(code(&ended), ProblemCode::OutcomeUnknown);
        assert_eq!(effects.count(), 1);
    });
}

#[test]
fn an_outcome_that_is_too_large_is_given_once() {
    with_paused_clock(async {
        let engine = engine();
        let large = || {
            let once = engine.once("reports", "k");
            once.policy(Policy::new().max_response(1000))
                .run(async |_| Ok::<_, NotDone<Declined>>("x".repeat(2000)))
        };
        assert_eq!(large().await.unwrap().len(), 2000);
        let error = large().await.unwrap_err();
        assert_eq!(
            error.problem().unwrap().code(),
            ProblemCode::ResponseNotStored
        );
        assert!(!error.is_retryable());
    });
}
