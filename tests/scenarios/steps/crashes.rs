//! What the next attempt knows of one that crashed.

use super::*;
use crate::support::{Operation, with_each_adapter, with_paused_clock};

#[test]
fn the_next_attempt_gets_the_stored_outcomes_and_goes_on() {
    with_each_adapter(async |adapter| {
        // Given a process that crashed during the third of four steps.
        let (store, provider) = (FaultyStore::new(), Provider::default());
        crashed_after(adapter, &store, &provider, &["reserve", "charge", "ship"]).await;
        assert_eq!(provider.steps(), ["reserve", "charge", "ship"]);

        // When a retry executes in another process.
        let handler = steps_of(&provider, &["reserve", "charge", "ship", "mail"]);
        let answer = retry(adapter, &store, &handler).await;

        // Then what was stored is not done again, and what was cut off is, under the same key.
        assert_eq!(answer.text(), "reserve 1, charge 2, ship 4, mail 5");
        assert_eq!(
            provider.steps(),
            ["reserve", "charge", "ship", "ship", "mail"]
        );
        let keys = provider.keys("ship");
        assert_eq!(keys[0], keys[1]);
        let again = retry(adapter, &store, &handler).await;
        assert!(again.replayed());
        assert_eq!(again.text(), answer.text());
    });
}

#[test]
fn each_of_many_crashes_repeats_one_step_only() {
    with_each_adapter(async |adapter| {
        let (store, provider) = (FaultyStore::new(), Provider::default());
        let names = &["a", "b", "c", "d"];
        // Each process dies while its first new step runs: nothing is stored, and the last one stores all.
        for _ in 0..3 {
            let process = Process::start(retrying(), store.clone());
            let crashing = steps_of(&provider, names);
            let app = adapter.app(&process.engine, &crashing);
            let (calls, held) = (provider.steps().len() + 2, provider.hold());
            held.add_permits(1);
            process
                .crash_when(&app, &payment(), || provider.steps().len() == calls)
                .await;
            advance(LEASE + Duration::from_secs(1)).await;
        }
        provider.let_go();
        let answer = retry(adapter, &store, &steps_of(&provider, names)).await;
        assert_eq!(answer.text(), "a 1, b 3, c 5, d 7");
        assert_eq!(provider.steps(), ["a", "b", "b", "c", "c", "d", "d"]);
    });
}

#[test]
fn a_step_costs_one_write_and_a_first_attempt_reads_nothing() {
    with_paused_clock(async {
        let (store, provider) = (FaultyStore::new(), Provider::default());
        let adapter = Adapter::Attribute;
        crashed_after(adapter, &store, &provider, &["reserve", "charge"]).await;
        let calls = || {
            (
                store.calls(Operation::ReadSteps),
                store.calls(Operation::AppendStep),
            )
        };
        assert_eq!(calls(), (0, 1));
        let handler = steps_of(&provider, &["reserve", "charge", "mail"]);
        retry(adapter, &store, &handler).await;
        assert_eq!(calls(), (1, 3));
    });
}

#[test]
fn a_key_for_another_service_is_one_for_each_step_and_record() {
    with_paused_clock(async {
        let [one, other] = in_an_execution(|execution| async move {
            let mut keys = Vec::new();
            for name in ["charge", "mail"] {
                let key = execution
                    .step(name, |step: Step| async move {
                        Ok::<_, String>(step.downstream_key())
                    })
                    .await;
                keys.push(key.unwrap());
            }
            // The same name as a label of the execution's own is another key.
            assert_ne!(keys[0], execution.downstream_key("charge"));
            keys.try_into().unwrap()
        })
        .await;
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
    });
}

#[test]
fn steps_that_run_at_the_same_time_have_the_order_of_their_calls() {
    with_each_adapter(async |adapter| {
        // Given two steps at once, of which the second ended first, before the process crashed.
        let (store, provider) = (FaultyStore::new(), Provider::default());
        let both = {
            let provider = provider.clone();
            move |hangs: bool| {
                let provider = provider.clone();
                handler(move |_, execution| {
                    let (slow, quick) = (provider.clone(), provider.clone());
                    async move {
                        let slow = execution.step("slow", |step: Step| async move {
                            let number = slow.call(&step).await;
                            if hangs {
                                std::future::pending::<()>().await;
                            }
                            Ok::<_, String>(number)
                        });
                        let quick = execution.step("quick", |step: Step| async move {
                            Ok::<_, String>(quick.call(&step).await)
                        });
                        // Polled in the other order.
                        let (quick, slow) = tokio::join!(quick, slow);
                        format!("{} {}", slow.unwrap(), quick.unwrap()).into_response()
                    }
                })
            }
        };
        let process = Process::start(retrying(), store.clone());
        let app = adapter.app(&process.engine, &both(true));
        let appended = || store.calls(Operation::AppendStep) == 1;
        process.crash_when(&app, &payment(), appended).await;
        advance(LEASE + Duration::from_secs(1)).await;

        // Then the next attempt runs the first one only.
        let answer = retry(adapter, &store, &both(false)).await;
        let steps = provider.steps();
        let first_two = ["quick", "slow"].map(|name| steps.iter().position(|step| step == name));
        let [Some(quick), Some(slow)] = first_two else {
            panic!("{steps:?}");
        };
        assert_eq!((quick + slow, &*steps[2], steps.len()), (1, "slow", 3));
        assert_eq!(answer.text(), format!("3 {}", quick + 1));
    });
}

#[test]
fn an_execution_that_lost_its_lease_runs_no_step_and_stores_none() {
    with_each_adapter(async |adapter| {
        // Given an execution whose step hangs until another process has taken the key over and run both steps.
        let (store, provider) = (FaultyStore::new(), Provider::default());
        let held = provider.hold();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let zombie = {
            let (provider, seen) = (provider.clone(), Arc::clone(&seen));
            handler(move |_, execution| {
                let (provider, seen) = (provider.clone(), Arc::clone(&seen));
                async move {
                    for name in ["charge", "mail"] {
                        let (kind, _) = fault(provider.step(&execution, name).await);
                        seen.lock().unwrap().push(kind);
                    }
                    assert!(execution.lease_lost());
                    StatusCode::CREATED.into_response()
                }
            })
        };
        let process = Process::start(retrying(), store.clone());
        let app = adapter.app(&process.engine, &zombie);
        // Its renewals reach the store no more, as those of a process that was stopped.
        store.fail_always(Operation::Renew, crate::support::Fault::Unreachable);
        let first = crate::support::send_in_task(&app, &payment());
        zombie.started(1).await;
        crate::support::run_ready_tasks().await;
        advance(LEASE + Duration::from_secs(1)).await;
        provider.let_go();
        let handler = steps_of(&provider, &["charge", "mail"]);
        let answer = retry(adapter, &store, &handler).await;
        assert_eq!(answer.text(), "charge 2, mail 3");

        // When the step of the first one ends.
        held.add_permits(1);
        let fenced = first.await.unwrap();

        // Then neither is stored, the second one did not run, and both clients have the outcome of the second execution.
        assert_eq!(
            *seen.lock().unwrap(),
            [StepFaultKind::LeaseLost, StepFaultKind::LeaseLost]
        );
        assert_eq!(provider.steps(), ["charge", "charge", "mail"]);
        assert_eq!(fenced.text(), "charge 2, mail 3");
    });
}

#[test]
fn a_recovery_that_finds_nothing_leaves_the_steps_to_the_next_attempt() {
    with_paused_clock(async {
        use idempotent_runtime::{Recovery, idempotent};

        async fn not_executed(_: idempotent_runtime::Crash) -> Recovery {
            Recovery::NotExecuted
        }

        #[idempotent(on_crash = not_executed)]
        async fn pay(
            axum::extract::State(provider): axum::extract::State<Provider>,
            execution: Execution,
        ) -> Response {
            run_steps(&provider, &execution, &["charge", "mail"]).await
        }

        let (store, provider) = (FaultyStore::new(), Provider::default());
        let app = |engine: &Idempotency| -> axum::Router {
            axum::Router::new()
                .route("/pay", axum::routing::post(pay))
                .layer(axum::Extension(engine.clone()))
                .with_state(provider.clone())
        };
        let process = Process::start(Idempotency::builder(), store.clone());
        let held = provider.hold();
        held.add_permits(1);
        let crashing = app(&process.engine);
        process
            .crash_when(&crashing, &payment(), || provider.steps().len() == 2)
            .await;
        provider.let_go();
        advance(LEASE + Duration::from_secs(1)).await;
        let engine = Idempotency::builder().store(store).build().unwrap();
        let answer = send(&app(&engine), &payment()).await;
        assert_eq!(answer.text(), "charge 1, mail 3");
    });
}
