//! Rotating the secret in rolling deploys: no key is executed under both secrets (DESIGN.md, section 6; invariants I2, I3,
//! I4, I10, I12).
//!
//! A rotation has three deploys, so four versions of the service, of which two neighbours run side by side. In
//! `rotation/schedules.rs` two of them ask the store in every order.

use std::{sync::Arc, time::Duration};

use idempotent_runtime::{
    BuildError, Builder, Fingerprint, Idempotency, IdempotencyKey, Keyring, MemoryStore, OnCrash,
    OnStoreError, Policy, Resolution,
    store::{Acquisition, Claim, Store, Token},
};
use tokio::sync::Semaphore;

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Operation, PAY, Process, Server, TestRequest,
    advance, in_real_time, run_ready_tasks, send, send_in_task, wait_until, waiters,
    with_each_adapter, with_paused_clock,
};

mod schedules;

const OLD: &[u8] = b"the old secret, 16 bytes or more";
const NEW: &[u8] = b"the new secret, 16 bytes or more";
const LEASE: Duration = Duration::from_secs(30);

/// What is rotated.
#[derive(Clone, Copy, Debug)]
enum Rotation {
    Exchange,
    Introduction,
    Removal,
}

const ROTATIONS: [Rotation; 3] = [
    Rotation::Exchange,
    Rotation::Introduction,
    Rotation::Removal,
];

impl Rotation {
    /// The settings of the service before the first deploy, and after each of the three.
    fn version(self, version: usize) -> Builder {
        let (old, new) = match self {
            Self::Exchange => (Some(OLD), Some(NEW)),
            Self::Introduction => (None, Some(NEW)),
            Self::Removal => (Some(OLD), None),
        };
        let (own, other) = match version {
            0 => (old, None),
            1 => (old, Some(new)),
            2 => (new, Some(old)),
            3 => (new, None),
            _ => panic!("there is no version {version}"),
        };
        let builder = Idempotency::builder();
        let builder = match own {
            Some(own) => builder.secret(own),
            None => builder,
        };
        match other {
            Some(Some(other)) => builder.and_secret(other),
            Some(None) => builder.and_no_secret(),
            None => builder,
        }
    }
}

/// The versions of which two run side by side, in either order.
const NEIGHBOURS: [(usize, usize); 8] = [
    (0, 1),
    (1, 0),
    (1, 1),
    (1, 2),
    (2, 1),
    (2, 2),
    (2, 3),
    (3, 2),
];

fn version(version: usize) -> Builder {
    Rotation::Exchange.version(version)
}

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

/// The records of the payment: under the old secret and under the new one.
fn records(engine: &Idempotency) -> [idempotent_runtime::StoreKey; 2] {
    let (endpoint, key) = (format!("POST {PAY}"), IdempotencyKey::new("k").unwrap());
    let own = engine.store_key(&endpoint, None, &key);
    let other = engine.other_store_key(&endpoint, None, &key).unwrap();
    [own, other]
}

#[test]
fn what_one_version_executed_replays_from_its_neighbours() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            for rotation in ROTATIONS {
                for (first, second) in NEIGHBOURS {
                    // Given two versions of the service on one store.
                    let (store, handler) = (MemoryStore::new(), CountingHandler::new());
                    let serve = async |version| {
                        let engine = rotation.version(version).store(store.clone());
                        Server::start(adapter.app(&engine.build().unwrap(), &handler)).await
                    };
                    let (first, second) = (serve(first).await, serve(second).await);

                    // When one has executed a payment.
                    first.send(&payment()).await.assert_charge(1);

                    // Then the other one replays it, and takes no other request for it.
                    second.send(&payment()).await.assert_replay_of_charge(1);
                    let other = payment().body("{}");
                    second.send(&other).await.assert_problem(409, "mismatch");
                    first.send(&payment()).await.assert_replay_of_charge(1);
                    assert_eq!(handler.starts(), 1);
                }
            }
        }
    });
}

/// The control: each of the three deploys is needed.
#[test]
fn a_deploy_that_leaves_a_step_out_executes_twice() {
    with_paused_clock(async {
        for (first, second) in [(0, 3), (3, 0), (2, 0), (1, 3), (0, 3)] {
            let (store, handler) = (MemoryStore::new(), CountingHandler::new());
            for (n, number) in [first, second].into_iter().enumerate() {
                let engine = version(number).store(store.clone()).build().unwrap();
                let app = Adapter::Attribute.app(&engine, &handler);
                send(&app, &payment()).await.assert_charge(n + 1);
            }
        }
    });
}

#[test]
fn a_duplicate_waits_for_an_execution_under_the_other_secret() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            for (first, second) in NEIGHBOURS {
                // Given an execution of one version, and duplicates that wait in the other one.
                let (store, handler) = (MemoryStore::new(), CountingHandler::new());
                let engine = |number| version(number).store(store.clone()).build().unwrap();
                let (here, there) = (engine(first), engine(second));
                let (first, second) = (
                    adapter.app(&here, &handler),
                    Server::start(adapter.app(&there, &handler)).await,
                );
                handler.close_gate();
                let executing = send_in_task(&first, &payment());
                handler.started(1).await;
                let second = Arc::new(second);
                let waiting: Vec<_> = (0..3)
                    .map(|_| {
                        let second = Arc::clone(&second);
                        tokio::spawn(async move { second.send(&payment()).await })
                    })
                    .collect();
                wait_until(|| waiters(&there) == 3).await;

                // When it ends, then they replay it.
                handler.open_gate();
                executing.await.unwrap().assert_charge(1);
                for waiting in waiting {
                    waiting.await.unwrap().assert_replay_of_charge(1);
                }
                assert_eq!(handler.starts(), 1);
            }
        }
    });
}

#[test]
fn a_duplicate_that_may_not_wait_gets_a_conflict_under_either_secret() {
    with_each_adapter(async |adapter| {
        for (first, second) in NEIGHBOURS {
            let (store, handler) = (MemoryStore::new(), CountingHandler::new());
            let app = |number| {
                let policy = Policy::new().wait(false);
                let engine = version(number).store(store.clone()).policy(policy);
                adapter.app(&engine.build().unwrap(), &handler)
            };
            let (first, second) = (app(first), app(second));
            handler.close_gate();
            let executing = send_in_task(&first, &payment());
            handler.started(1).await;
            send(&second, &payment())
                .await
                .assert_problem(409, "conflict");
            handler.open_gate();
            executing.await.unwrap().assert_charge(1);
        }
    });
}

#[test]
fn waiters_execute_one_after_the_other_version_released_the_key() {
    with_each_adapter(async |adapter| {
        for (first, second) in [(1, 2), (2, 1)] {
            // Given many waiters for an execution under the other secret.
            let (store, handler) = (MemoryStore::new(), CountingHandler::with_first_status(429));
            let engine = |number| version(number).store(store.clone()).build().unwrap();
            let (here, there) = (engine(first), engine(second));
            handler.close_gate();
            let executing = send_in_task(&adapter.app(&here, &handler), &payment());
            handler.started(1).await;
            let app = adapter.app(&there, &handler);
            let waiting: Vec<_> = (0..50).map(|_| send_in_task(&app, &payment())).collect();
            run_ready_tasks().await;
            assert_eq!(waiters(&there), 50);

            // When it releases the key.
            handler.open_gate();
            assert_eq!(executing.await.unwrap().status, 429);

            // Then one of them executes, and the others replay.
            let mut executed = 0;
            for waiting in waiting {
                let answer = waiting.await.unwrap();
                executed += usize::from(!answer.replayed());
                assert_eq!(answer.text(), "charge 2", "{answer:?}");
            }
            assert_eq!((executed, handler.starts()), (1, 2));
        }
    });
}

#[test]
fn an_outcome_that_was_not_stored_is_not_executed_under_the_other_secret() {
    with_each_adapter(async |adapter| {
        for (first, second) in NEIGHBOURS {
            let (store, handler) = (MemoryStore::new(), CountingHandler::new());
            let app = |number| {
                let policy = Policy::new().max_response(2);
                let engine = version(number).store(store.clone()).policy(policy);
                adapter.app(&engine.build().unwrap(), &handler)
            };
            send(&app(first), &payment()).await.assert_charge(1);
            send(&app(second), &payment())
                .await
                .assert_problem(409, "response_not_stored");
            assert_eq!(handler.starts(), 1);
        }
    });
}

/// A version of the service that crashes while it executes the payment.
async fn crash(
    adapter: Adapter,
    number: usize,
    policy: &Policy,
    store: impl Store,
    handler: &CountingHandler,
) {
    handler.close_gate();
    let process = Process::start(version(number).policy(policy.clone()), store);
    let app = adapter.app(&process.engine, handler);
    process.crash(&app, &payment(), handler).await;
    handler.open_gate();
    advance(LEASE + Duration::from_secs(1)).await;
}

#[test]
fn a_crash_under_one_secret_is_unknown_under_the_other_one() {
    with_each_adapter(async |adapter| {
        for (first, second) in NEIGHBOURS {
            let (store, handler) = (MemoryStore::new(), CountingHandler::new());
            let policy = Policy::new();
            crash(adapter, first, &policy, store.clone(), &handler).await;
            let engine = version(second).store(store).build().unwrap();
            let app = adapter.app(&engine, &handler);
            send(&app, &payment())
                .await
                .assert_problem(409, "outcome_unknown");
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_crash_under_one_secret_is_retried_from_the_other_one_as_the_next_attempt() {
    with_each_adapter(async |adapter| {
        let recover: idempotent_runtime::RecoverFn =
            |_| Box::pin(async { idempotent_runtime::Recovery::NotExecuted });
        for on_crash in [OnCrash::Retry, OnCrash::Recover(recover)] {
            for (first, second) in NEIGHBOURS {
                // Given an execution that crashed under one secret.
                let (store, handler) = (MemoryStore::new(), CountingHandler::new());
                let policy = Policy::new().on_crash(on_crash);
                crash(adapter, first, &policy, store.clone(), &handler).await;

                // When retries come to the other version.
                let engine = version(second).store(store).policy(policy);
                let app = adapter.app(&engine.build().unwrap(), &handler);
                let retries: Vec<_> = (0..5).map(|_| send_in_task(&app, &payment())).collect();
                for retry in retries {
                    assert_eq!(retry.await.unwrap().text(), "charge 2");
                }

                // Then one of them executes, with what the first attempt passed on.
                assert_eq!(handler.attempts(), [1, 2]);
                let passed_on = |n| handler.execution(n).downstream_key("bank");
                assert_eq!(passed_on(1), passed_on(2));
            }
        }
    });
}

#[test]
fn duplicates_follow_an_execution_of_their_process_under_the_other_secret() {
    with_each_adapter(async |adapter| {
        // Given a take-over under the other secret, whose record has expired meanwhile.
        let (store, handler) = (FaultyStore::new(), CountingHandler::new());
        let policy = Policy::new()
            .on_crash(OnCrash::Retry)
            .ttl(Duration::from_secs(60));
        crash(adapter, 1, &policy, store.clone(), &handler).await;
        let engine = version(2).store(store.clone()).policy(policy);
        let app = adapter.app(&engine.build().unwrap(), &handler);
        handler.close_gate();
        let executing = send_in_task(&app, &payment());
        handler.started(2).await;
        store.fail_always(Operation::Renew, Fault::Unreachable);
        store.lose_record().await;

        // When a duplicate comes, then it follows and executes nothing.
        let duplicate = send_in_task(&app, &payment());
        advance(Duration::from_secs(20)).await;
        assert!(!duplicate.is_finished());
        assert_eq!(handler.starts(), 2);
        duplicate.abort();
        handler.open_gate();
        executing
            .await
            .unwrap()
            .assert_problem(409, "outcome_unknown");
    });
}

#[test]
fn a_claim_that_a_crash_left_hides_no_outcome_under_the_other_secret() {
    with_each_adapter(async |adapter| {
        for number in [1, 2] {
            for lapsed in [true, false] {
                for on_crash in [OnCrash::Refuse, OnCrash::Retry] {
                    // Given an outcome under the own secret, and a claim for the other record, whose process ended before
                    // it gave it back.
                    let (store, handler) = (MemoryStore::new(), CountingHandler::new());
                    let policy = Policy::new().on_crash(on_crash);
                    let engine = version(number).store(store.clone()).policy(policy);
                    let engine = engine.build().unwrap();
                    let app = adapter.app(&engine, &handler);
                    send(&app, &payment()).await.assert_charge(1);
                    let [own, other] = records(&engine);
                    let fingerprint = store.get(&own).await.unwrap().unwrap().fingerprint;
                    let claim = Claim::new(other, fingerprint, Token::random(), LEASE, LEASE * 9);
                    store.acquire(&claim).await.unwrap();
                    if lapsed {
                        advance(LEASE * 2).await;
                    }

                    // Then the outcome is replayed.
                    send(&app, &payment()).await.assert_replay_of_charge(1);
                    assert_eq!(handler.starts(), 1);
                }
            }
        }
    });
}

#[test]
fn a_claim_of_another_request_makes_no_mismatch_of_a_duplicate() {
    with_each_adapter(async |adapter| {
        for number in [1, 2] {
            // Given an execution under the own secret of another process, and a claim for the other record by another
            // request, which will see that execution and give its claim back.
            let (store, handler) = (MemoryStore::new(), CountingHandler::new());
            let engine = || {
                let policy = Policy::new().wait(false);
                let engine = version(number).store(store.clone()).policy(policy);
                engine.build().unwrap()
            };
            let (here, there) = (engine(), engine());
            handler.close_gate();
            let executing = send_in_task(&adapter.app(&here, &handler), &payment());
            handler.started(1).await;
            let [_, other] = records(&there);
            let mut another = [1; 32];
            // Of the same caller.
            another[24..].fill(0);
            let another = Fingerprint::from_bytes(another);
            let claim = Claim::new(other, another, Token::random(), LEASE, LEASE);
            store.acquire(&claim).await.unwrap();

            // Then a duplicate meets the execution, and the other request is one.
            let app = adapter.app(&there, &handler);
            send(&app, &payment()).await.assert_problem(409, "conflict");
            let other = payment().body("{}");
            send(&app, &other).await.assert_problem(409, "mismatch");
            handler.open_gate();
            executing.await.unwrap().assert_charge(1);
        }
    });
}

#[test]
fn a_claim_under_each_secret_of_which_none_ended_is_executed_by_nobody() {
    with_each_adapter(async |adapter| {
        for on_crash in [OnCrash::Refuse, OnCrash::Retry] {
            // Given two claims whose processes crashed: which of them began to execute is unknown.
            let (store, handler) = (MemoryStore::new(), CountingHandler::new());
            let policy = Policy::new().on_crash(on_crash);
            crash(adapter, 1, &policy, store.clone(), &handler).await;
            let engine = version(2).store(store.clone()).policy(policy);
            let engine = engine.build().unwrap();
            let [own, other] = records(&engine);
            let fingerprint = store.get(&other).await.unwrap().unwrap().fingerprint;
            let claim = Claim::new(own, fingerprint, Token::random(), LEASE, LEASE * 99);
            store.acquire(&claim).await.unwrap();
            advance(LEASE * 2).await;

            // Then nobody executes again.
            let app = adapter.app(&engine, &handler);
            for _ in 0..3 {
                send(&app, &payment())
                    .await
                    .assert_problem(409, "outcome_unknown");
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_crashed_claim_that_goes_while_it_is_looked_at_leaves_the_key_to_the_own_secret() {
    with_each_adapter(async |adapter| {
        // Given a request that has seen a crashed execution under the other secret, and asks which lease it was.
        let (records, handler) = (MemoryStore::new(), CountingHandler::new());
        let policy = Policy::new().on_crash(OnCrash::Retry);
        crash(adapter, 1, &policy, records.clone(), &handler).await;
        let store = FaultyStore::over(records.clone());
        let engine = version(2).store(store.clone()).policy(policy);
        let engine = engine.build().unwrap();
        let app = adapter.app(&engine, &handler);
        let asked = Arc::new(Semaphore::new(0));
        store.fail_next(Operation::Acquire, Fault::HoldRequest(Arc::clone(&asked)));
        let paying = send_in_task(&app, &payment());
        run_ready_tasks().await;

        // When an operator resolves it as not executed.
        let [own, other] = self::records(&engine);
        let resolved = engine.resolve(&other, Resolution::NotExecuted).await;
        resolved.unwrap();
        asked.add_permits(1);

        // Then the key is claimed under the own secret: nothing new begins under the other one.
        paying.await.unwrap().assert_charge(2);
        assert!(records.get(&own).await.unwrap().is_some());
        assert!(records.get(&other).await.unwrap().is_none());
    });
}

#[test]
fn waiters_follow_a_key_to_the_other_secret() {
    with_each_adapter(async |adapter| {
        // Given waiters for a claim under their own secret.
        let (store, handler) = (FaultyStore::without_wakes(), CountingHandler::new());
        let engine = |number| {
            let engine = version(number).store(store.clone());
            engine.encrypt(Keyring::new(1, [7; 32])).build().unwrap()
        };
        let (here, there) = (engine(1), engine(2));
        let request = payment().header("authorization", "Bearer a");
        let [own, _] = records(&there);
        let probe = adapter.app(&there, &handler);
        store.fail_next(Operation::Acquire, Fault::HangAfterApplying);
        let first = send_in_task(&probe, &request);
        run_ready_tasks().await;
        assert!(store.get(&own).await.unwrap().is_some());
        let waiting: Vec<_> = (0..5).map(|_| send_in_task(&probe, &request)).collect();
        run_ready_tasks().await;
        assert_eq!(waiters(&there), 5);

        // When it is given back, and the other version executes the request before they look again.
        let [given_back, ..] = store.tokens()[..] else {
            panic!("nothing was claimed")
        };
        store.release(&own, &given_back).await.unwrap();
        send(&adapter.app(&here, &handler), &request)
            .await
            .assert_charge(1);

        // Then all of them replay that.
        for waiting in waiting {
            waiting.await.unwrap().assert_replay_of_charge(1);
        }
        first.await.unwrap().assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn credentials_say_who_calls_under_either_secret() {
    with_each_adapter(async |adapter| {
        for rotation in ROTATIONS {
            for (first, second) in NEIGHBOURS {
                let (store, handler) = (MemoryStore::new(), CountingHandler::new());
                let app = |number| {
                    let engine = rotation.version(number).store(store.clone());
                    adapter.app(&engine.build().unwrap(), &handler)
                };
                let (first, second) = (app(first), app(second));
                let by = |token: &str| payment().header("authorization", token);
                send(&first, &by("Bearer a")).await.assert_charge(1);
                send(&second, &by("Bearer a"))
                    .await
                    .assert_replay_of_charge(1);
                send(&second, &by("Bearer b"))
                    .await
                    .assert_problem(409, "caller_mismatch");
            }
        }
    });
}

#[test]
fn encrypted_responses_replay_under_either_secret() {
    with_each_adapter(async |adapter| {
        for (first, second) in NEIGHBOURS {
            let (store, handler) = (MemoryStore::new(), CountingHandler::new());
            let engine = |number| {
                let engine = version(number).store(store.clone());
                let engine = engine.encrypt(Keyring::new(1, [7; 32]));
                engine.build().unwrap()
            };
            let (here, there) = (engine(first), engine(second));
            let (first, second) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
            handler.close_gate();
            let executing = send_in_task(&first, &payment());
            handler.started(1).await;
            let waiting = send_in_task(&second, &payment());
            run_ready_tasks().await;
            handler.open_gate();
            executing.await.unwrap().assert_charge(1);
            waiting.await.unwrap().assert_replay_of_charge(1);
            send(&second, &payment()).await.assert_replay_of_charge(1);
        }
    });
}

#[test]
fn if_one_of_the_records_cannot_be_read_nothing_starts() {
    with_each_adapter(async |adapter| {
        for (number, reads_before) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            // Given a store that fails at the read before the claim, or at the one after it.
            let (store, handler) = (FaultyStore::new(), CountingHandler::new());
            let engine = version(number).store(store.clone()).build().unwrap();
            let app = adapter.app(&engine, &handler);
            for _ in 0..reads_before {
                store.fail_next(Operation::Get, Fault::None);
            }
            store.fail_next(Operation::Get, Fault::Unreachable);

            // Then the handler does not start.
            send(&app, &payment())
                .await
                .assert_problem(503, "store_unavailable");
            assert_eq!(handler.starts(), 0);

            // And the key is given back: a retry executes.
            run_ready_tasks().await;
            send(&app, &payment()).await.assert_charge(1);
        }
    });
}

#[test]
fn on_store_error_execute_never_executes_what_was_seen_under_the_other_secret() {
    with_each_adapter(async |adapter| {
        for lapsed in [false, true] {
            for on_crash in [OnCrash::Refuse, OnCrash::Retry] {
                // Given an execution under the other secret, in flight or crashed, of which the store tells once.
                let (records, handler) = (MemoryStore::new(), CountingHandler::new());
                let policy = Policy::new().on_crash(on_crash).wait(false);
                handler.close_gate();
                let process = Process::start(version(1).policy(policy.clone()), records.clone());
                let app = adapter.app(&process.engine, &handler);
                process.crash(&app, &payment(), &handler).await;
                handler.open_gate();
                if lapsed {
                    advance(LEASE + Duration::from_secs(1)).await;
                }
                let store = FaultyStore::over(records);
                let engine = version(2).store(store.clone()).policy(policy);
                let engine = engine
                    .on_store_error(OnStoreError::Execute)
                    .build()
                    .unwrap();
                store.fail_next(Operation::Get, Fault::None);
                store.fail_always(Operation::Get, Fault::Unreachable);
                store.fail_always(Operation::Acquire, Fault::Unreachable);

                // Then it is not executed again.
                let answer = send(&adapter.app(&engine, &handler), &payment()).await;
                let code = if lapsed {
                    "outcome_unknown"
                } else {
                    "conflict"
                };
                answer.assert_problem(409, code);
                assert_eq!(handler.starts(), 1);
            }
        }
    });
}

#[test]
fn a_repeated_release_of_a_claim_ends_no_later_claim_of_its_request() {
    with_each_adapter(async |adapter| {
        // Given a request that has claimed its record when another version claims the other one.
        let (records, handler) = (MemoryStore::new(), CountingHandler::new());
        let store = FaultyStore::over(records.clone());
        let engine = version(2).store(store.clone()).build().unwrap();
        let app = adapter.app(&engine, &handler);
        let (second_read, repetition) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        store.fail_next(Operation::Get, Fault::None);
        store.fail_next(Operation::Get, Fault::HoldRequest(Arc::clone(&second_read)));
        store.fail_next(Operation::Release, Fault::ReplyLost);
        let held = Fault::HoldRequest(Arc::clone(&repetition));
        store.fail_next(Operation::Release, held);
        let paying = send_in_task(&app, &payment());
        run_ready_tasks().await;
        let [own, other] = self::records(&engine);
        let fingerprint = records.get(&own).await.unwrap().unwrap().fingerprint;
        let claim = Claim::new(other, fingerprint, Token::random(), LEASE, LEASE * 9);
        records.acquire(&claim).await.unwrap();

        // When it gives its claim back, of which it does not hear, and so does the other version.
        second_read.add_permits(1);
        run_ready_tasks().await;
        assert_eq!(handler.starts(), 0);
        records.release(&claim.key, &claim.token).await.unwrap();

        // Then it claims again and executes, and the repetition of the release does not end that.
        handler.close_gate();
        advance(Duration::from_secs(1)).await;
        assert_eq!((handler.starts(), store.calls(Operation::Release)), (1, 2));
        repetition.add_permits(1);
        run_ready_tasks().await;
        assert!(records.get(&own).await.unwrap().is_some());
        assert_eq!(store.tokens().len(), 2, "each claim has a token of its own");
        handler.open_gate();
        paying.await.unwrap().assert_charge(1);
        send(&app, &payment()).await.assert_replay_of_charge(1);
    });
}

#[test]
fn a_key_that_was_released_executes_under_the_other_secret() {
    with_each_adapter(async |adapter| {
        for (first, second) in NEIGHBOURS {
            let (store, handler) = (MemoryStore::new(), CountingHandler::with_first_status(429));
            let app = |number| {
                let engine = version(number).store(store.clone()).build().unwrap();
                adapter.app(&engine, &handler)
            };
            assert_eq!(send(&app(first), &payment()).await.status, 429);
            send(&app(second), &payment()).await.assert_charge(2);
            send(&app(first), &payment())
                .await
                .assert_replay_of_charge(2);
        }
    });
}

#[test]
fn records_of_the_other_secret_replay_without_room_for_an_execution() {
    with_each_adapter(async |adapter| {
        let (store, handler) = (MemoryStore::new(), CountingHandler::new());
        let engine = version(1).store(store.clone()).build().unwrap();
        send(&adapter.app(&engine, &handler), &payment())
            .await
            .assert_charge(1);
        let full = version(2).store(store).max_detached(1).build().unwrap();
        let app = adapter.app(&full, &handler);
        handler.close_gate();
        let detached = send_in_task(&app, &TestRequest::payment("another"));
        handler.started(2).await;
        detached.abort();
        run_ready_tasks().await;
        send(&app, &TestRequest::payment("new"))
            .await
            .assert_problem(503, "overloaded");
        send(&app, &payment()).await.assert_replay_of_charge(1);
        handler.open_gate();
    });
}

#[test]
fn without_room_nothing_executes_because_a_record_cannot_be_read() {
    with_each_adapter(async |adapter| {
        let (store, handler) = (FaultyStore::new(), CountingHandler::new());
        let engine = version(2).store(store.clone()).max_detached(1);
        let engine = engine
            .on_store_error(OnStoreError::Execute)
            .build()
            .unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let detached = send_in_task(&app, &TestRequest::payment("another"));
        handler.started(1).await;
        detached.abort();
        run_ready_tasks().await;
        store.fail_always(Operation::Get, Fault::Unreachable);
        send(&app, &payment())
            .await
            .assert_problem(503, "overloaded");
        assert_eq!(handler.starts(), 1);
        handler.open_gate();
    });
}

#[test]
fn without_a_rotation_no_second_record_is_read() {
    with_each_adapter(async |adapter| {
        for (number, reads) in [(0, 0), (1, 3), (2, 3), (3, 0)] {
            let (store, handler) = (FaultyStore::new(), CountingHandler::new());
            let engine = version(number).store(store.clone()).build().unwrap();
            let app = adapter.app(&engine, &handler);
            send(&app, &payment()).await.assert_charge(1);
            send(&app, &payment()).await.assert_replay_of_charge(1);
            assert_eq!(store.calls(Operation::Get), reads);
        }
    });
}

#[test]
fn two_secrets_that_are_the_same_are_refused() {
    let build = |builder: Builder| builder.build().map(|_| ());
    let long = [7; 100];
    // SHA-256 of it, as which HMAC takes a secret that is longer than a block.
    let hashed = [
        0xd8, 0x76, 0x88, 0x5b, 0x7f, 0x40, 0xea, 0xe7, 0x0b, 0xd1, 0xf5, 0x24, 0x7a, 0x98, 0x54,
        0x91, 0x4f, 0xa5, 0x81, 0x2c, 0xe6, 0x39, 0x98, 0xe2, 0xd8, 0x94, 0xa6, 0x8e, 0x18, 0x79,
        0x67, 0xcb,
    ];
    let same = Err(BuildError::SameSecret);
    let padded = [OLD, &[0, 0]].concat();
    for (own, other) in [(OLD, OLD), (OLD, &padded), (&long, &hashed)] {
        let builder = Idempotency::builder().secret(own).and_secret(other);
        assert_eq!(build(builder), same, "HMAC does not tell them apart");
    }
    assert_eq!(build(Idempotency::builder().and_no_secret()), same);
    let short = Err(BuildError::ShortSecret { length: 15 });
    assert_eq!(build(version(0).and_secret([1; 15])), short);
    assert_eq!(build(Idempotency::builder().and_secret([1; 15])), short);
    assert_eq!(build(version(0).and_secret(NEW)), Ok(()));
}

#[test]
fn an_operator_finds_the_record_under_either_secret() {
    with_paused_clock(async {
        let (store, handler) = (MemoryStore::new(), CountingHandler::new());
        let before = version(0).store(store.clone()).build().unwrap();
        let app = Adapter::Attribute.app(&before, &handler);
        send(&app, &payment()).await.assert_charge(1);
        let during = version(2).store(store.clone()).build().unwrap();
        let [own, other] = records(&during);
        assert!(during.inspect(&own).await.unwrap().is_none());
        assert!(during.inspect(&other).await.unwrap().is_some());
        let (endpoint, key) = (format!("POST {PAY}"), IdempotencyKey::new("k").unwrap());
        assert_eq!(before.store_key(&endpoint, None, &key), other);
        assert_eq!(before.other_store_key(&endpoint, None, &key), None);
        let claim = Claim::new(
            own,
            store.get(&other).await.unwrap().unwrap().fingerprint,
            Token::random(),
            LEASE,
            LEASE,
        );
        let acquired = store.acquire(&claim).await.unwrap();
        assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
    });
}
