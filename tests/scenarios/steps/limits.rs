//! Names, numbers and sizes of steps, and what can be stored of them.

use super::*;
use crate::support::with_paused_clock;

#[test]
fn a_step_that_has_run_or_runs_is_not_run_under_the_same_name() {
    with_paused_clock(async {
        let (repeated, nested) = in_an_execution(|execution| async move {
            let one = || execution.step("charge", || async { Ok::<_, String>(1) });
            one().await.unwrap();
            let repeated = fault(one().await);
            let inner = execution.clone();
            let nested = execution
                .step("outer", || async move {
                    let again = inner.step("outer", || async { Ok::<_, String>(1) });
                    Ok::<_, String>(fault(again.await).1)
                })
                .await;
            (repeated, nested.unwrap())
        })
        .await;
        assert_eq!(repeated.0, StepFaultKind::Repeated);
        assert!(repeated.1.contains("`charge` has run"), "{}", repeated.1);
        assert!(nested.contains("`outer` is running"), "{nested}");
    });
}

#[test]
fn a_step_that_was_dropped_before_it_was_polled_may_be_asked_for_again() {
    with_paused_clock(async {
        let outcome = in_an_execution(|execution| async move {
            drop(execution.step("charge", || async { Ok::<_, String>(1) }));
            let charge = execution.step("charge", || async { Ok::<_, String>(2) });
            charge.await.unwrap()
        })
        .await;
        assert_eq!(outcome, 2);
    });
}

#[test]
fn names_numbers_and_sizes_of_steps_are_bounded() {
    with_paused_clock(async {
        let faults = in_an_execution(|execution| async move {
            let unit = || async { Ok::<_, String>(()) };
            let mut faults = Vec::new();
            faults.push(fault(execution.step("", unit).await));
            faults.push(fault(execution.step(&"n".repeat(129), unit).await));
            execution.step(&"n".repeat(128), unit).await.unwrap();
            // Two quotes and this many bytes.
            let text = |size: usize| move || async move { Ok::<_, String>("x".repeat(size - 2)) };
            faults.push(fault(execution.step("large", text(64 * 1024 + 1)).await));
            execution.step("large", text(64 * 1024)).await.unwrap();
            // The bound of all together.
            for n in 2..16 {
                let name = format!("large/{n}");
                execution.step(&name, text(64 * 1024)).await.unwrap();
            }
            faults.push(fault(execution.step("last", text(64 * 1024)).await));
            for n in 17..256 {
                execution.step(&format!("small/{n}"), unit).await.unwrap();
            }
            faults.push(fault(execution.step("one more", unit).await));
            faults
        })
        .await;
        for (found, says) in faults.into_iter().zip([
            "has 0 bytes",
            "has 129 bytes",
            "has 65537 bytes as JSON",
            "more than 1048576 bytes",
            "one more than the 256 steps",
        ]) {
            assert_eq!(found.0, StepFaultKind::Limit);
            assert!(found.1.contains(says), "{}", found.1);
        }
    });
}

#[test]
fn an_outcome_that_json_cannot_give_back_is_refused_when_it_is_stored() {
    with_paused_clock(async {
        let (kind, message) = in_an_execution(|execution| async move {
            fault(
                execution
                    .step("rate", || async { Ok::<_, String>(f64::NAN) })
                    .await,
            )
        })
        .await;
        assert_eq!(kind, StepFaultKind::NotSerializable);
        assert!(message.contains("`rate`"), "{message}");
    });
}

#[test]
fn an_attempt_gets_the_outcome_as_the_next_one_would() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Charge {
        id: u64,
        #[serde(skip)]
        connection: Option<String>,
    }
    with_paused_clock(async {
        let charge = in_an_execution(|execution| async move {
            let charge = execution.step("charge", || async {
                Ok::<_, String>(Charge {
                    id: 7,
                    connection: Some("open".into()),
                })
            });
            charge.await.unwrap()
        })
        .await;
        let connection = None;
        assert_eq!(charge, Charge { id: 7, connection });
    });
}
