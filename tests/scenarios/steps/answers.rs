//! What becomes of a step's own error, and of the response of a handler that has steps.

use idempotent_runtime::Retention;

use super::*;
use crate::support::{with_each_adapter, with_paused_clock};

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Declined {
    reason: String,
}

#[test]
fn an_error_of_a_step_is_not_stored_and_the_step_runs_again() {
    with_paused_clock(async {
        let calls = in_an_execution(|execution| async move {
            let mut keys = Vec::new();
            for n in 1..=3 {
                let keys = &mut keys;
                let charged = execution.step("charge", |step: Step| async move {
                    keys.push(step.downstream_key());
                    if n < 3 { Err("no answer") } else { Ok(n) }
                });
                match charged.await {
                    Ok(charged) => assert_eq!(charged, 3),
                    Err(error) => assert_eq!(error.failed(), Some("no answer")),
                }
            }
            keys
        })
        .await;
        assert_eq!(calls.len(), 3);
        assert!(calls.iter().all(|key| *key == calls[0]));
    });
}

#[test]
fn a_definite_refusal_is_an_outcome() {
    with_each_adapter(async |adapter| {
        let (store, provider) = (FaultyStore::new(), Provider::default());
        let checkout = |hangs: bool| {
            let provider = provider.clone();
            handler(move |_, execution| {
                let provider = provider.clone();
                async move {
                    let charged: Result<u64, Declined> = execution
                        .step("charge", |step: Step| async move {
                            provider.call(&step).await;
                            let reason = "no money".to_owned();
                            Ok::<_, String>(Err(Declined { reason }))
                        })
                        .await
                        .unwrap();
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    let declined = charged.unwrap_err();
                    (StatusCode::PAYMENT_REQUIRED, declined.reason).into_response()
                }
            })
        };
        let process = Process::start(retrying(), store.clone());
        let app = adapter.app(&process.engine, &checkout(true));
        let appended = || store.calls(crate::support::Operation::AppendStep) == 1;
        process.crash_when(&app, &payment(), appended).await;
        advance(LEASE + Duration::from_secs(1)).await;
        let answer = retry(adapter, &store, &checkout(false)).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (402, "no money"));
        assert_eq!(provider.steps(), ["charge"]);
    });
}

/// A handler that stores a step and then answers so; its second execution completes.
fn answering(provider: &Provider, answer: fn() -> Response) -> CountingHandler {
    let provider = provider.clone();
    handler(move |n, execution| {
        let provider = provider.clone();
        async move {
            let charged = provider.step(&execution, "charge").await.unwrap();
            if n == 1 {
                return answer();
            }
            format!("charge {charged} in attempt {}", execution.attempt()).into_response()
        }
    })
}

#[test]
fn a_response_that_would_release_the_key_keeps_the_steps_for_the_next_attempt() {
    with_each_adapter(async |adapter| {
        let answers: [fn() -> Response; 3] = [
            || StatusCode::TOO_MANY_REQUESTS.into_response(),
            || (Retention::Release, StatusCode::BAD_GATEWAY).into_response(),
            || (Retention::Unknown, StatusCode::BAD_GATEWAY).into_response(),
        ];
        for answer in answers {
            let provider = Provider::default();
            let handler = answering(&provider, answer);
            let engine = retrying().build().unwrap();
            let app = adapter.app(&engine, &handler);
            assert!(send(&app, &payment()).await.status.as_u16() >= 429);
            let again = send(&app, &payment()).await;
            assert_eq!(again.text(), "charge 1 in attempt 2");
            assert_eq!(provider.steps(), ["charge"]);
            assert!(send(&app, &payment()).await.replayed());
        }
    });
}

#[test]
fn without_retries_a_release_frees_the_key_and_its_steps() {
    with_each_adapter(async |adapter| {
        let provider = Provider::default();
        let handler = answering(&provider, || StatusCode::TOO_MANY_REQUESTS.into_response());
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        assert_eq!(send(&app, &payment()).await.status, 429);
        let again = send(&app, &payment()).await;
        assert_eq!(again.text(), "charge 2 in attempt 1");
    });
}

#[test]
fn a_response_that_says_unknown_is_treated_as_a_crash() {
    with_each_adapter(async |adapter| {
        let unknown = || {
            CountingHandler::responding(|n| {
                if n == 1 {
                    return (StatusCode::GATEWAY_TIMEOUT, Retention::Unknown, "?").into_response();
                }
                format!("charge {n}").into_response()
            })
        };
        // By default nothing executes again.
        let (handler, engine) = (unknown(), Idempotency::builder().build().unwrap());
        let app = adapter.app(&engine, &handler);
        let first = send(&app, &payment()).await;
        assert_eq!((first.status.as_u16(), first.text()), (504, "?"));
        for _ in 0..2 {
            let again = send(&app, &payment()).await;
            again.assert_problem(409, "outcome_unknown");
        }
        assert_eq!(handler.starts(), 1);

        // With `retry` the next one executes.
        let (handler, engine) = (unknown(), retrying().build().unwrap());
        let app = adapter.app(&engine, &handler);
        assert_eq!(send(&app, &payment()).await.status, 504);
        assert_eq!(send(&app, &payment()).await.text(), "charge 2");
        assert_eq!(handler.attempts(), [1, 2]);
    });
}

#[test]
fn the_error_of_a_step_as_a_response_is_not_stored() {
    with_each_adapter(async |adapter| {
        for (error, status) in [
            (StepError::Failed(StatusCode::BAD_GATEWAY), 502),
            (limit_fault().await, 409),
        ] {
            let error = Mutex::new(Some(error));
            let handler =
                CountingHandler::responding(move |_| match error.lock().unwrap().take() {
                    Some(error) => error.into_response(),
                    None => "charged".into_response(),
                });
            let engine = retrying().build().unwrap();
            let app = adapter.app(&engine, &handler);
            let first = send(&app, &payment()).await;
            assert_eq!(first.status, status);
            if status == 409 {
                first.assert_problem(409, "outcome_unknown");
            }
            assert_eq!(send(&app, &payment()).await.text(), "charged");
        }
    });
}

/// A fault, of a step without a name.
async fn limit_fault() -> StepError<StatusCode> {
    let step = in_an_execution(|execution| async move {
        execution
            .step("", || async { Ok::<_, StatusCode>(()) })
            .await
    });
    step.await.unwrap_err()
}

#[test]
fn an_error_whose_response_says_what_becomes_of_it_decides() {
    with_each_adapter(async |adapter| {
        struct Sure;

        impl IntoResponse for Sure {
            fn into_response(self) -> Response {
                (Retention::Store, StatusCode::BAD_REQUEST).into_response()
            }
        }

        let handler = CountingHandler::responding(|_| StepError::Failed(Sure).into_response());
        let engine = retrying().build().unwrap();
        let app = adapter.app(&engine, &handler);
        for _ in 0..2 {
            assert_eq!(send(&app, &payment()).await.status, 400);
        }
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_fault_as_a_response_has_the_style_of_its_engine() {
    with_each_adapter(async |adapter| {
        let error = Mutex::new(Some(limit_fault().await));
        let handler = CountingHandler::responding(move |_| {
            let error = error.lock().unwrap().take();
            error.expect("one execution").into_response()
        });
        let engine = retrying().problem_type_base("https://errors.example/");
        let app = adapter.app(&engine.build().unwrap(), &handler);
        let answer = send(&app, &payment()).await;
        assert!(
            answer
                .text()
                .contains("https://errors.example/outcome_unknown")
        );
    });
}
