//! Steps on a store that fails, or that keeps none.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use idempotent_runtime::{
    Keyring, StoreKey,
    store::{
        Acquisition, Claim, Held, Outcome, Record, Store, StoreError, StoreErrorKind, Token, Wake,
        Write,
    },
};

use tokio::task::yield_now;

use super::*;
use crate::support::{Fault, Operation, poll_once, with_each_adapter, with_paused_clock};

#[test]
fn a_lost_reply_is_repeated_and_the_step_is_stored_once() {
    with_each_adapter(async |adapter| {
        let (store, provider) = (FaultyStore::new(), Provider::default());
        crashed_after(adapter, &store, &provider, &["charge", "mail"]).await;
        store.fail_next(Operation::ReadSteps, Fault::ReplyLost);
        store.fail_next(Operation::AppendStep, Fault::ReplyLost);
        store.fail_next(Operation::AppendStep, Fault::Unreachable);
        let handler = steps_of(&provider, &["charge", "mail", "note"]);
        let answer = retry(adapter, &store, &handler).await;
        assert_eq!(answer.text(), "charge 1, mail 3, note 4");
        assert_eq!(store.calls(Operation::ReadSteps), 2);
        assert_eq!(store.calls(Operation::AppendStep), 1 + 4);
    });
}

/// A handler that asks for `charge` until it is stored, and then for `mail`, and counts how often it asked in vain.
fn patient(provider: &Provider, store: &FaultyStore, faults: &Arc<AtomicUsize>) -> CountingHandler {
    let (provider, store, faults) = (provider.clone(), store.clone(), Arc::clone(faults));
    handler(move |_, execution| {
        let (provider, store, faults) = (provider.clone(), store.clone(), Arc::clone(&faults));
        async move {
            let charged = loop {
                match provider.step(&execution, "charge").await {
                    Ok(charged) => break charged,
                    Err(error) => {
                        assert_eq!(error.fault().unwrap().kind(), StepFaultKind::Store);
                        faults.fetch_add(1, Ordering::SeqCst);
                        store.heal();
                    }
                }
            };
            let mailed = provider.step(&execution, "mail").await.unwrap();
            format!("{charged} {mailed}").into_response()
        }
    })
}

#[test]
fn a_step_that_ran_and_could_not_be_stored_stays_known_to_its_execution() {
    with_each_adapter(async |adapter| {
        for lost in [Fault::Unreachable, Fault::ReplyLost] {
            // Given a store that acknowledges no step, whether it applies it or not.
            let (store, provider) = (FaultyStore::new(), Provider::default());
            store.fail_always(Operation::AppendStep, lost);
            let faults = Arc::new(AtomicUsize::new(0));
            let handler = patient(&provider, &store, &faults);

            // When it is back and the step is asked for again.
            let answer = retry(adapter, &store, &handler).await;

            // Then the step did not run again.
            assert_eq!(answer.text(), "1 2");
            assert_eq!(provider.steps(), ["charge", "mail"]);
            assert_eq!(faults.load(Ordering::SeqCst), 1);
        }
    });
}

#[test]
fn a_step_whose_future_was_dropped_while_it_was_stored_stays_known() {
    with_paused_clock(async {
        for hangs in [Fault::Hang, Fault::HangAfterApplying] {
            let (store, provider) = (FaultyStore::new(), Provider::default());
            store.fail_next(Operation::AppendStep, hangs);
            let dropping = {
                let (provider, store) = (provider.clone(), store.clone());
                handler(move |_, execution| {
                    let (provider, store) = (provider.clone(), store.clone());
                    async move {
                        {
                            let mut step = pin!(provider.step(&execution, "charge"));
                            while store.calls(Operation::AppendStep) == 0 {
                                assert!(poll_once(step.as_mut()).await.is_none());
                                yield_now().await;
                            }
                        }
                        // Another step stores it, too.
                        let mailed = provider.step(&execution, "mail").await.unwrap();
                        let charged = provider.step(&execution, "charge").await.unwrap();
                        format!("{charged} {mailed}").into_response()
                    }
                })
            };
            let answer = retry(Adapter::Attribute, &store, &dropping).await;
            assert_eq!(answer.text(), "1 2");
            assert_eq!(provider.steps(), ["charge", "mail"]);
        }
    });
}

#[test]
fn a_step_that_is_kept_and_not_polled_holds_up_no_other_one() {
    with_paused_clock(async {
        let (store, provider) = (FaultyStore::new(), Provider::default());
        crashed_after(Adapter::Attribute, &store, &provider, &["order", "charge"]).await;
        for operation in [Operation::ReadSteps, Operation::AppendStep] {
            store.fail_next(operation, Fault::Hang);
        }
        let keeping = {
            let (provider, store) = (provider.clone(), store.clone());
            handler(move |_, execution| {
                let (provider, store) = (provider.clone(), store.clone());
                async move {
                    // While it reads the log, and while it appends to it.
                    let mut order = pin!(provider.step(&execution, "order"));
                    while store.calls(Operation::ReadSteps) == 0 {
                        assert!(poll_once(order.as_mut()).await.is_none());
                        yield_now().await;
                    }
                    let appends = store.calls(Operation::AppendStep);
                    let mut charge = pin!(provider.step(&execution, "charge"));
                    while store.calls(Operation::AppendStep) == appends {
                        assert!(poll_once(charge.as_mut()).await.is_none());
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    let mail = provider.step(&execution, "mail");
                    let mail = tokio::time::timeout(LEASE, mail).await;
                    let mail = mail.expect("it waits for a step that nobody polls");
                    let (order, charge) = (order.await.unwrap(), charge.await.unwrap());
                    format!("{order} {charge} {}", mail.unwrap()).into_response()
                }
            })
        };
        let answer = retry(Adapter::Attribute, &store, &keeping).await;
        assert_eq!(answer.text(), "1 3 4");
        assert_eq!(provider.steps(), ["order", "charge", "charge", "mail"]);
    });
}

#[test]
fn a_store_that_refuses_steps_is_an_error_with_its_reason() {
    with_each_adapter(async |adapter| {
        let (store, provider) = (FaultyStore::new(), Provider::default());
        store.fail_always(Operation::AppendStep, Fault::Error(StoreErrorKind::Refused));
        let refused = handler(move |_, execution| {
            let provider = provider.clone();
            async move {
                let error = provider.step(&execution, "charge").await.unwrap_err();
                let fault = error.fault().unwrap();
                assert_eq!(fault.kind(), StepFaultKind::Store);
                let source = std::error::Error::source(fault).unwrap().to_string();
                assert!(source.contains("refused"), "{source}");
                "seen".into_response()
            }
        });
        assert_eq!(retry(adapter, &store, &refused).await.text(), "seen");
    });
}

#[test]
fn steps_that_cannot_be_read_are_an_error_and_nothing_runs() {
    with_each_adapter(async |adapter| {
        // Given steps that were encrypted with a key that the next process does not have.
        let (store, provider) = (FaultyStore::new(), Provider::default());
        let crashing = steps_of(&provider, &["charge", "mail"]);
        let encrypting = retrying().encrypt(Keyring::new(1, [7; 32]));
        let process = Process::start(encrypting, store.clone());
        let app = adapter.app(&process.engine, &crashing);
        let held = provider.hold();
        held.add_permits(1);
        process
            .crash_when(&app, &payment(), || provider.steps().len() == 2)
            .await;
        provider.let_go();
        advance(LEASE + Duration::from_secs(1)).await;
        assert!(!store.written().contains("charge"), "they are encrypted");

        // Then its steps do not run.
        let reading = {
            let provider = provider.clone();
            handler(move |_, execution| {
                let provider = provider.clone();
                async move {
                    let (kind, message) = fault(provider.step(&execution, "charge").await);
                    assert_eq!(kind, StepFaultKind::Unreadable);
                    assert!(message.contains("Builder::encrypt"), "{message}");
                    (idempotent_runtime::Retention::Unknown, "seen").into_response()
                }
            })
        };
        assert_eq!(retry(adapter, &store, &reading).await.text(), "seen");
        assert_eq!(provider.steps(), ["charge", "mail"]);

        // And a process that has the key goes on.
        let engine = retrying()
            .encrypt(Keyring::new(1, [7; 32]))
            .store(store.clone());
        let app = adapter.app(&engine.build().unwrap(), &crashing);
        assert_eq!(send(&app, &payment()).await.text(), "charge 1, mail 3");
    });
}

/// A store that keeps no steps.
struct Stepless(MemoryStore);

impl Store for Stepless {
    fn name(&self) -> &'static str {
        "stepless"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.0.acquire(claim).await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.0.renew(held).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.0.complete(held, outcome).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.0.release(key, token).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.0.abandon(key, token).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.0.get(key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.0.purge_expired(limit).await
    }

    fn attach(&self, wake: Wake) {
        self.0.attach(wake);
    }
}

#[test]
fn on_a_store_that_keeps_no_steps_a_step_is_refused_before_it_runs() {
    with_each_adapter(async |adapter| {
        let provider = Provider::default();
        let refused = {
            let provider = provider.clone();
            handler(move |_, execution| {
                let provider = provider.clone();
                async move {
                    let (kind, message) = fault(provider.step(&execution, "charge").await);
                    assert_eq!(kind, StepFaultKind::Unsupported);
                    assert!(message.contains("the stepless store"), "{message}");
                    "seen".into_response()
                }
            })
        };
        let engine = retrying().store(Stepless(MemoryStore::new()));
        let app = adapter.app(&engine.build().unwrap(), &refused);
        assert_eq!(send(&app, &payment()).await.text(), "seen");
        assert!(provider.steps().is_empty());
    });
}
