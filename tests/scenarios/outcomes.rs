//! Which responses are stored as the outcome, and which release the key (DESIGN.md, sections 3 and 4; invariants
//! I2, I10).

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use idempotent_runtime::{
    Builder, Cache, Idempotency, IdempotencyLayer, MemoryStore, OnCrash, Policy, Retention,
    idempotent,
};
use serde_json::Value;
use std::{collections::HashMap, io, time::Duration};

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Operation, TestRequest, TestResponse, advance,
    run_ready_tasks, send, send_in_task, stream, waiters, with_each_adapter, with_paused_clock,
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn engine(policy: Policy) -> Idempotency {
    Idempotency::builder().policy(policy).build().unwrap()
}

/// Whether this response is stored and replayed; otherwise the retry executes again.
async fn is_stored(adapter: Adapter, policy: Policy, answer: fn() -> Response) -> bool {
    let handler = CountingHandler::responding(move |_| answer());
    let app = adapter.app(&engine(policy), &handler);
    let first = send(&app, &payment()).await;
    let again = send(&app, &payment()).await;
    assert_eq!(again.status, first.status);
    assert!(!first.replayed());
    assert_eq!(again.replayed(), handler.starts() == 1);
    again.replayed()
}

#[test]
fn only_statuses_that_refuse_before_processing_release_the_key() {
    with_each_adapter(async |adapter| {
        for status in 200..600 {
            let handler = CountingHandler::responding(move |_| {
                StatusCode::from_u16(status).unwrap().into_response()
            });
            let app = adapter.app(&engine(Policy::new()), &handler);
            for _ in 0..2 {
                assert_eq!(send(&app, &payment()).await.status, status);
            }
            let released = [401, 407, 421, 425, 429].contains(&status);
            assert_eq!(handler.starts(), 1 + usize::from(released), "{status}");
        }
    });
}

#[test]
fn a_route_chooses_which_responses_are_stored() {
    with_each_adapter(async |adapter| {
        let answers: [fn() -> Response; 8] = [
            || StatusCode::CREATED.into_response(),
            || StatusCode::SEE_OTHER.into_response(),
            || StatusCode::BAD_REQUEST.into_response(),
            || StatusCode::CONFLICT.into_response(),
            || StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            || StatusCode::GATEWAY_TIMEOUT.into_response(),
            || StatusCode::SERVICE_UNAVAILABLE.into_response(),
            || StatusCode::TOO_MANY_REQUESTS.into_response(),
        ];
        for (cache, stored) in [
            (
                Cache::All,
                [true, true, true, true, true, true, true, false],
            ),
            (
                Cache::NoServerErrors,
                [true, true, true, true, false, false, false, false],
            ),
            (
                Cache::Success,
                [true, true, false, false, false, false, false, false],
            ),
        ] {
            for (answer, stored) in answers.into_iter().zip(stored) {
                let policy = Policy::new().cache(cache);
                assert_eq!(
                    is_stored(adapter, policy, answer).await,
                    stored,
                    "{cache:?}"
                );
            }
        }
    });
}

#[test]
fn a_handler_decides_whether_one_response_is_stored() {
    with_each_adapter(async |adapter| {
        for cache in [Cache::All, Cache::NoServerErrors, Cache::Success] {
            let policy = Policy::new().cache(cache);
            let store: [fn() -> Response; 3] = [
                || (Retention::Store, StatusCode::TOO_MANY_REQUESTS).into_response(),
                || (Retention::Store, StatusCode::BAD_REQUEST).into_response(),
                || (Retention::Store, StatusCode::INTERNAL_SERVER_ERROR).into_response(),
            ];
            for answer in store {
                assert!(is_stored(adapter, policy.clone(), answer).await);
            }
            let release: [fn() -> Response; 2] = [
                || (Retention::Release, StatusCode::CREATED).into_response(),
                || (Retention::Release, StatusCode::BAD_GATEWAY).into_response(),
            ];
            for answer in release {
                assert!(!is_stored(adapter, policy.clone(), answer).await);
            }
        }
    });
}

#[test]
fn a_route_names_the_statuses_that_prove_that_nothing_happened() {
    with_each_adapter(async |adapter| {
        let written = Policy::new().release(&[404, 503]);
        let read = Policy::new()
            .release_statuses([StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE]);
        for policy in [written, read] {
            let stored: [fn() -> Response; 3] = [
                || StatusCode::REQUEST_TIMEOUT.into_response(),
                || StatusCode::CREATED.into_response(),
                || (Retention::Store, StatusCode::NOT_FOUND).into_response(),
            ];
            for answer in stored {
                assert!(is_stored(adapter, policy.clone(), answer).await);
            }
            let released: [fn() -> Response; 3] = [
                || StatusCode::NOT_FOUND.into_response(),
                || StatusCode::SERVICE_UNAVAILABLE.into_response(),
                || StatusCode::TOO_MANY_REQUESTS.into_response(),
            ];
            for answer in released {
                assert!(!is_stored(adapter, policy.clone(), answer).await);
            }
        }
    });
}

#[test]
fn a_policy_never_releases_a_panic() {
    with_each_adapter(async |adapter| {
        for policy in [
            Policy::new().cache(Cache::NoServerErrors),
            Policy::new().cache(Cache::Success),
            Policy::new().release(&[500, 503]),
        ] {
            let handler = CountingHandler::responding(|_| panic!("a panic of the scenario"));
            let app = adapter.app(&engine(policy), &handler);
            for replayed in [false, true] {
                let answer = send(&app, &payment()).await;
                answer.assert_problem(500, "handler_panicked");
                assert_eq!(answer.replayed(), replayed);
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn cache_control_decides_nothing() {
    with_each_adapter(async |adapter| {
        for value in [
            "no-store",
            "no-cache, no-store, private, max-age=0",
            "public, max-age=60",
        ] {
            let handler = CountingHandler::responding(move |_| {
                ([("cache-control", value)], StatusCode::SERVICE_UNAVAILABLE).into_response()
            });
            let app = adapter.app(&engine(Policy::new()), &handler);
            send(&app, &payment()).await;
            assert!(send(&app, &payment()).await.replayed(), "{value}");
            let handler = CountingHandler::responding(move |_| {
                ([("cache-control", value)], StatusCode::TOO_MANY_REQUESTS).into_response()
            });
            let app = adapter.app(&engine(Policy::new()), &handler);
            send(&app, &payment()).await;
            assert!(!send(&app, &payment()).await.replayed(), "{value}");
        }
    });
}

#[test]
fn a_handler_decides_how_long_one_response_replays() {
    with_each_adapter(async |adapter| {
        for status in [StatusCode::CREATED, StatusCode::TOO_MANY_REQUESTS] {
            for streamed in [false, true] {
                // Given a route that keeps outcomes for an hour, and a handler that keeps its first one for a minute.
                let handler = CountingHandler::responding(move |n| {
                    let body = if streamed {
                        stream(["charge ", "1"])
                    } else {
                        Body::from("charge 1")
                    };
                    let minute = Retention::StoreFor(Duration::from_secs(60));
                    match n {
                        1 => (status, minute, body).into_response(),
                        n => (StatusCode::CREATED, format!("charge {n}")).into_response(),
                    }
                });
                let policy = Policy::new().ttl(Duration::from_secs(3600));
                let app = adapter.app(&engine(policy), &handler);
                assert_eq!(send(&app, &payment()).await.text(), "charge 1");

                // Then that one is replayed for a minute, and the next one for an hour.
                advance(Duration::from_secs(59)).await;
                let again = send(&app, &payment()).await;
                assert_eq!((again.text(), again.replayed()), ("charge 1", true));
                advance(Duration::from_secs(2)).await;
                send(&app, &payment()).await.assert_charge(2);
                advance(Duration::from_secs(3590)).await;
                send(&app, &payment()).await.assert_replay_of_charge(2);
                advance(Duration::from_secs(20)).await;
                send(&app, &payment()).await.assert_charge(3);
            }
        }
    });
}

#[test]
fn a_handler_may_keep_one_response_longer_than_its_route() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::responding(|n| {
            let day = Retention::StoreFor(Duration::from_secs(86_400));
            (StatusCode::CREATED, day, format!("charge {n}")).into_response()
        });
        let app = adapter.app(
            &engine(Policy::new().ttl(Duration::from_secs(60))),
            &handler,
        );
        send(&app, &payment()).await.assert_charge(1);
        advance(Duration::from_secs(7200)).await;
        send(&app, &payment()).await.assert_replay_of_charge(1);
    });
}

#[test]
fn a_panic_is_an_outcome_that_retries_replay() {
    with_each_adapter(async |adapter| {
        // Given a handler that panics after its effect.
        let handler = CountingHandler::responding(|_| panic!("with secret data"));
        let app = adapter.app(&engine(Policy::new()), &handler);
        let first = send(&app, &payment()).await;
        first.assert_problem(500, "handler_panicked");
        assert!(!first.replayed() && !first.text().contains("secret"));

        // When it is retried, then the 500 is replayed, and nothing executes again.
        let again = send(&app, &payment()).await;
        again.assert_problem(500, "handler_panicked");
        assert!(again.replayed());
        assert_eq!(again.body, first.body);
        assert_eq!(handler.effects(), 1);
    });
}

#[test]
fn with_retry_a_panic_executes_again_as_the_next_attempt() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::responding(|n| match n {
            1 | 2 => panic!("a panic of the scenario"),
            n => (StatusCode::CREATED, format!("charge {n}")).into_response(),
        });
        let app = adapter.app(&engine(Policy::new().on_crash(OnCrash::Retry)), &handler);
        for _ in 0..2 {
            let answer = send(&app, &payment()).await;
            answer.assert_problem(500, "handler_panicked");
            assert_eq!(answer.json()["action"], "retry_same_key");
            assert_eq!(answer.json()["retryable"], true);
        }
        send(&app, &payment()).await.assert_charge(3);
        send(&app, &payment()).await.assert_replay_of_charge(3);
        assert_eq!(handler.attempts(), [1, 2, 3]);
    });
}

#[test]
fn waiters_for_a_handler_that_panics_get_its_outcome() {
    with_each_adapter(async |adapter| {
        for (on_crash, executions) in [(OnCrash::Refuse, 1), (OnCrash::Retry, 2)] {
            let handler = CountingHandler::responding(|n| match n {
                1 => panic!("a panic of the scenario"),
                n => (StatusCode::CREATED, format!("charge {n}")).into_response(),
            });
            let engine = engine(Policy::new().on_crash(on_crash));
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            let first = send_in_task(&app, &payment());
            handler.started(1).await;
            let waiting: Vec<_> = (0..10).map(|_| send_in_task(&app, &payment())).collect();
            run_ready_tasks().await;
            assert_eq!(waiters(&engine), 10);
            handler.open_gate();
            first.await.unwrap().assert_problem(500, "handler_panicked");
            let mut first_hand = 0;
            for waiter in waiting {
                let answer = waiter.await.unwrap();
                first_hand += usize::from(!answer.replayed());
                if executions == 1 {
                    answer.assert_problem(500, "handler_panicked");
                } else {
                    assert_eq!(answer.text(), "charge 2");
                }
            }
            assert_eq!((first_hand, handler.starts()), (executions - 1, executions));
        }
    });
}

#[test]
fn a_panic_after_the_client_disconnected_is_stored_too() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::responding(|_| panic!("a panic of the scenario"));
        let app = adapter.app(&engine(Policy::new()), &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        first.abort();
        run_ready_tasks().await;
        handler.open_gate();
        run_ready_tasks().await;
        let answer = send(&app, &payment()).await;
        answer.assert_problem(500, "handler_panicked");
        assert!(answer.replayed());
        assert_eq!(handler.starts(), 1);
    });
}

#[idempotent]
async fn order(
    State(handler): State<CountingHandler>,
    Query(_): Query<HashMap<String, u32>>,
    Json(order): Json<Value>,
) -> Response {
    handler
        .call(http::Request::new(order.to_string().into()))
        .await
}

#[test]
fn a_rejection_by_an_extractor_releases_the_key() {
    with_paused_clock(async {
        // Given a handler that takes JSON.
        let handler = CountingHandler::new();
        let app = Router::new()
            .route("/order", post(order))
            .layer(Extension(engine(Policy::new())))
            .with_state(handler.clone());
        let good = TestRequest::post("/order")
            .key("k")
            .header("content-type", "application/json")
            .body(r#"{"item":"book"}"#);
        let mut typeless = good.clone();
        typeless.headers.remove("content-type");
        let rejected = [
            (good.clone().body(r#"{"item":"#), 400),
            (typeless, 415),
            (
                TestRequest {
                    path: "/order?n=x".into(),
                    ..good.clone()
                },
                400,
            ),
        ];

        // When requests are rejected before the handler starts.
        for (bad, status) in rejected {
            for _ in 0..2 {
                let answer = send(&app, &bad).await;
                assert_eq!(answer.status, status);
                assert!(!answer.replayed());
            }
        }
        assert_eq!(handler.starts(), 0);

        // Then the corrected request executes under the same key.
        send(&app, &good).await.assert_charge(1);
        send(&app, &good).await.assert_replay_of_charge(1);
    });
}

#[test]
fn after_a_rejection_a_waiter_executes_its_own_request() {
    with_paused_clock(async {
        struct Slow;
        impl<S: Sync> axum::extract::FromRequestParts<S> for Slow {
            type Rejection = StatusCode;
            async fn from_request_parts(
                parts: &mut http::request::Parts,
                _: &S,
            ) -> Result<Self, StatusCode> {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let fails = parts.headers.contains_key("x-fail");
                if fails {
                    Err(StatusCode::FORBIDDEN)
                } else {
                    Ok(Self)
                }
            }
        }
        #[idempotent]
        async fn slow(
            State(handler): State<CountingHandler>,
            _: Slow,
            request: axum::extract::Request,
        ) -> Response {
            handler.call(request).await
        }
        let (handler, engine) = (CountingHandler::new(), engine(Policy::new()));
        let app = Router::new()
            .route("/pay", post(slow))
            .layer(Extension(engine.clone()))
            .with_state(handler.clone());
        let first = send_in_task(&app, &payment().header("x-fail", "1"));
        run_ready_tasks().await;
        let waiter = send_in_task(&app, &payment());
        run_ready_tasks().await;
        assert_eq!(waiters(&engine), 1);
        advance(Duration::from_secs(3)).await;
        assert_eq!(first.await.unwrap().status, 403);
        waiter.await.unwrap().assert_charge(1);
    });
}

/// Names the request type of the layer's inner service, which a closure alone leaves open.
fn typed<S>(service: S) -> S
where
    S: tower::Service<http::Request<Body>, Response = Response, Error = io::Error>,
{
    service
}

#[test]
fn a_service_that_fails_without_a_response_leaves_its_outcome_unknown() {
    with_paused_clock(async {
        // Given a service behind the layer that returns an error after its effect.
        let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let service = {
            let calls = calls.clone();
            tower::service_fn(move |_: http::Request<_>| {
                calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                async { Err::<Response, io::Error>(io::Error::other("gone")) }
            })
        };
        let layer = IdempotencyLayer::new(engine(Policy::new()));
        let service = tower::Layer::layer(&layer, typed(service));

        // When it is called, then its error is passed on.
        let failed = tower::ServiceExt::oneshot(service.clone(), payment().request()).await;
        assert_eq!(failed.unwrap_err().to_string(), "gone");

        // And a retry gets a conflict: the outcome is unknown.
        let again = tower::ServiceExt::oneshot(service, payment().request()).await;
        let again: http::Response<_> = again.unwrap();
        assert_eq!(again.status(), 409);
        assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 1);
    });
}

#[test]
fn a_service_that_fails_after_it_was_fenced_out_answers_with_its_own_error() {
    with_paused_clock(async {
        // Given a service that returns an error the first time it is called, and whose heartbeats do not arrive.
        let handler = CountingHandler::with_first_status(500);
        let records = MemoryStore::new();
        let store = FaultyStore::over(records.clone());
        store.fail_always(Operation::Renew, Fault::Hang);
        let service = tower::service_fn({
            let handler = handler.clone();
            move |request: http::Request<Body>| {
                let answer = handler.clone().call(request);
                async {
                    let answer = answer.await;
                    let failed = answer.status() == StatusCode::INTERNAL_SERVER_ERROR;
                    (!failed).then_some(answer).ok_or(io::Error::other("gone"))
                }
            }
        });
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let behind = |builder: Builder| {
            let engine = builder.policy(policy.clone()).build().unwrap();
            tower::Layer::layer(&IdempotencyLayer::new(engine), service.clone())
        };
        let here = behind(Idempotency::builder().store(store));
        let there = behind(Idempotency::builder().store(records));
        let retry = tower::ServiceExt::oneshot(there.clone(), payment().request());
        handler.close_gate();
        let old = tower::ServiceExt::oneshot(here, payment().request());
        let old = tokio::spawn(old);
        handler.started(1).await;

        // When another execution takes over and answers before the first one returns its error.
        advance(Duration::from_secs(31)).await;
        handler.let_through(2);
        let new = tower::ServiceExt::oneshot(there, payment().request()).await;
        let new = new.unwrap();
        TestResponse::read(new).await.assert_charge(2);
        handler.let_through(1);

        // Then the first client gets that error: what this request did does not depend on who has the key now.
        let old = old.await.unwrap().map(Response::into_parts);
        assert_eq!(old.unwrap_err().to_string(), "gone");

        // And retries get the winner's response, which was not abandoned.
        let retry = retry.await.unwrap();
        TestResponse::read(retry).await.assert_replay_of_charge(2);
    });
}

#[test]
fn a_record_expires_its_ttl_after_its_completion() {
    with_each_adapter(async |adapter| {
        // Given an execution of an hour, and a ttl of a minute.
        let handler = CountingHandler::new();
        let policy = Policy::new()
            .ttl(Duration::from_secs(60))
            .max_lifetime(Duration::from_secs(7200));
        let app = adapter.app(&engine(policy), &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        advance(Duration::from_secs(3600)).await;
        handler.open_gate();
        first.await.unwrap().assert_charge(1);

        // Then it is replayed for a minute after its end, however often, and then expires.
        for _ in 0..5 {
            advance(Duration::from_secs(11)).await;
            send(&app, &payment()).await.assert_replay_of_charge(1);
        }
        advance(Duration::from_secs(6)).await;
        send(&app, &payment()).await.assert_charge(2);
    });
}
