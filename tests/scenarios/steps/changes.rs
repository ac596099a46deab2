//! Steps that are not those of the attempt before.

use super::*;
use crate::support::with_each_adapter;

/// What the next attempt sees that asks for these steps, after one that stored `reserve` and `charge`.
async fn after_a_deploy(
    adapter: Adapter,
    names: &'static [&'static str],
) -> (StepFaultKind, String) {
    let (store, provider) = (FaultyStore::new(), Provider::default());
    crashed_after(adapter, &store, &provider, &["reserve", "charge", "mail"]).await;
    let seen = Arc::new(Mutex::new(None));
    let changed = {
        let (provider, seen) = (provider.clone(), Arc::clone(&seen));
        handler(move |_, execution| {
            let (provider, seen) = (provider.clone(), Arc::clone(&seen));
            async move {
                for name in names {
                    let step = provider.step(&execution, name).await;
                    if let Err(error) = step {
                        *seen.lock().unwrap() = Some(fault::<()>(Err(error)));
                        return StepError::<StatusCode>::Failed(StatusCode::BAD_GATEWAY)
                            .into_response();
                    }
                }
                StatusCode::CREATED.into_response()
            }
        })
    };
    assert_eq!(retry(adapter, &store, &changed).await.status, 502);
    // Nothing ran again, and with the old code the key still ends well.
    assert_eq!(provider.steps(), ["reserve", "charge", "mail"]);
    let old = steps_of(&provider, &["reserve", "charge", "mail"]);
    let answer = retry(adapter, &store, &old).await;
    assert_eq!(answer.text(), "reserve 1, charge 2, mail 4");
    let seen = seen.lock().unwrap().take();
    seen.expect("a fault")
}

#[test]
fn a_step_that_was_renamed_moved_added_or_removed_is_an_error_that_says_so() {
    with_each_adapter(async |adapter| {
        for (names, says) in [
            (
                &["reserve", "pay"][..],
                ["stored the step `charge` at position 1", "asks for `pay`"],
            ),
            (
                &["charge", "reserve"],
                [
                    "stored the step `reserve` at position 0",
                    "asks for `charge`",
                ],
            ),
            (
                &["audit", "reserve", "charge"],
                [
                    "stored the step `reserve` at position 0",
                    "asks for `audit`",
                ],
            ),
            (
                &["charge"],
                [
                    "stored the step `reserve` at position 0",
                    "asks for `charge`",
                ],
            ),
            (
                &["reserve", "mail"],
                ["stored the step `charge` at position 1", "asks for `mail`"],
            ),
        ] {
            let (kind, message) = after_a_deploy(adapter, names).await;
            assert_eq!(kind, StepFaultKind::Changed);
            for part in says {
                assert!(message.contains(part), "{message}");
            }
        }
    });
}

#[test]
fn a_step_that_is_asked_for_at_another_position_is_an_error() {
    with_each_adapter(async |adapter| {
        // Given an attempt whose first step failed, so that only the second one is stored, at position 1.
        let (store, provider) = (FaultyStore::new(), Provider::default());
        let crashing = {
            let provider = provider.clone();
            handler(move |_, execution| {
                let provider = provider.clone();
                async move {
                    let failed: Result<u8, _> = execution
                        .step("lookup", || async { Err("no answer".to_owned()) })
                        .await;
                    assert_eq!(failed.unwrap_err().failed().unwrap(), "no answer");
                    provider.step(&execution, "charge").await.unwrap();
                    provider.step(&execution, "mail").await.unwrap();
                    StatusCode::CREATED.into_response()
                }
            })
        };
        let process = Process::start(retrying(), store.clone());
        let app = adapter.app(&process.engine, &crashing);
        let held = provider.hold();
        held.add_permits(1);
        process
            .crash_when(&app, &payment(), || provider.steps().len() == 2)
            .await;
        provider.let_go();
        advance(LEASE + Duration::from_secs(1)).await;

        // When the first step is gone: the stored one is found at another position.
        let gone = {
            let provider = provider.clone();
            handler(move |_, execution| {
                let provider = provider.clone();
                async move {
                    let (kind, message) = fault(provider.step(&execution, "charge").await);
                    assert_eq!(kind, StepFaultKind::Changed);
                    assert!(message.contains("`charge` at position 1"), "{message}");
                    (idempotent_runtime::Retention::Unknown, "refused").into_response()
                }
            })
        };
        assert_eq!(retry(adapter, &store, &gone).await.text(), "refused");

        // And with it, it has its place.
        let answer = retry(adapter, &store, &crashing).await;
        assert_eq!(answer.status, 201);
        assert_eq!(provider.steps(), ["charge", "mail", "mail"]);
    });
}

#[test]
fn a_step_that_returns_another_type_is_an_error_that_says_so() {
    with_each_adapter(async |adapter| {
        let (store, provider) = (FaultyStore::new(), Provider::default());
        crashed_after(adapter, &store, &provider, &["charge", "mail"]).await;
        let retyped = handler(|_, execution| async move {
            let charge: Result<Option<usize>, _> = execution
                .step("charge", || async { panic!("it runs") })
                .await;
            let (kind, message) = fault(charge);
            assert_eq!(kind, StepFaultKind::Changed);
            assert!(message.contains("stored a `usize`"), "{message}");
            assert!(message.contains("returns a `Option<usize>`"), "{message}");
            (idempotent_runtime::Retention::Unknown, "refused").into_response()
        });
        assert_eq!(retry(adapter, &store, &retyped).await.text(), "refused");
    });
}

#[test]
fn an_outcome_whose_type_has_changed_under_its_name_is_an_error() {
    mod old {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) struct Charge {
            pub(super) id: String,
        }
    }
    mod new {
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        pub(super) struct Charge {
            pub(super) id: u64,
            pub(super) currency: String,
        }
    }
    with_each_adapter(async |adapter| {
        let store = FaultyStore::new();
        let crashing = handler(|_, execution| async move {
            let charge = execution.step("charge", || async {
                let id = "hush".into();
                Ok::<_, String>(old::Charge { id })
            });
            assert_eq!(charge.await.unwrap().id, "hush");
            std::future::pending().await
        });
        let process = Process::start(retrying(), store.clone());
        let app = adapter.app(&process.engine, &crashing);
        let appended = || store.calls(crate::support::Operation::AppendStep) == 1;
        process.crash_when(&app, &payment(), appended).await;
        advance(LEASE + Duration::from_secs(1)).await;
        let changed = handler(|_, execution| async move {
            let charge = execution
                .step("charge", || async {
                    Ok::<_, String>(new::Charge {
                        id: 8,
                        currency: "EUR".into(),
                    })
                })
                .await;
            let error = charge
                .map(|charge| (charge.id, charge.currency))
                .unwrap_err();
            // The log may say which value, and not what it is.
            let fault = error.fault().unwrap();
            let all = format!("{fault} {fault:?}");
            assert!(
                all.contains("line 1, column 12") && !all.contains("hush"),
                "{all}"
            );
            assert!(std::error::Error::source(fault).is_none());
            assert_eq!(fault.kind(), StepFaultKind::NotSerializable);
            (idempotent_runtime::Retention::Unknown, "refused").into_response()
        });
        assert_eq!(retry(adapter, &store, &changed).await.text(), "refused");
    });
}
