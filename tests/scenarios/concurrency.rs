//! Many requests at once, and many in a row (DESIGN.md, section 10; invariants I2, I4, I5).

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Body;
use http::{Request, Response};
use idempotent_runtime::{Idempotency, IdempotencyLayer, MemoryStore};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{
    Adapter, CountingHandler, Server, TestRequest, in_real_time, send, send_in_task,
    unprotected_app, wait_until, waiters, with_paused_clock,
};

#[test]
fn a_hundred_concurrent_duplicates_execute_once_and_get_equal_answers() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            let handler = CountingHandler::new();
            let engine = Idempotency::builder().build().unwrap();
            let server = Arc::new(Server::start(adapter.app(&engine, &handler)).await);
            handler.close_gate();
            let requests: Vec<_> = (0..100)
                .map(|_| {
                    let server = Arc::clone(&server);
                    tokio::spawn(async move { server.send(&TestRequest::payment("k")).await })
                })
                .collect();
            wait_until(|| waiters(&engine) == 99).await;
            handler.open_gate();
            let mut first_hand = 0;
            for answer in requests {
                let answer = answer.await.unwrap();
                assert_eq!((answer.status.as_u16(), answer.text()), (201, "charge 1"));
                first_hand += usize::from(!answer.replayed());
            }
            assert_eq!((first_hand, handler.starts(), handler.effects()), (1, 1, 1));
        }
    });
}

#[test]
fn a_hundred_duplicates_that_race_from_the_start_execute_once() {
    in_real_time(async {
        for round in 0..20 {
            let handler = CountingHandler::new();
            let engine = Idempotency::builder().build().unwrap();
            let app = Adapter::Attribute.app(&engine, &handler);
            let requests: Vec<_> = (0..100)
                .map(|_| send_in_task(&app, &TestRequest::payment("k")))
                .collect();
            let mut first_hand = 0;
            for answer in requests {
                let answer = answer.await.unwrap();
                assert_eq!((answer.status.as_u16(), answer.text()), (201, "charge 1"));
                first_hand += usize::from(!answer.replayed());
            }
            assert_eq!(
                (first_hand, handler.starts(), waiters(&engine)),
                (1, 1, 0),
                "{round}"
            );
        }
    });
}

#[test]
fn a_thousand_concurrent_keys_execute_once_each() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let store = MemoryStore::new();
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = Adapter::Attribute.app(&engine, &handler);
        handler.close_gate();
        let keys: Vec<_> = (0..1000)
            .map(|n| TestRequest::payment(&format!("k{n}")))
            .collect();
        let first: Vec<_> = keys.iter().map(|key| send_in_task(&app, key)).collect();
        handler.started(1000).await;
        assert_eq!(store.len(), 1000);
        handler.open_gate();
        let mut answers = Vec::new();
        for answer in first {
            answers.push(answer.await.unwrap());
        }
        for (key, first) in keys.iter().zip(answers) {
            assert_eq!(first.status, 201);
            let again = send(&app, key).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body));
        }
        assert_eq!((handler.starts(), handler.effects()), (1000, 1000));
    });
}

#[test]
fn after_three_hundred_thousand_keys_the_first_is_still_replayed() {
    in_real_time(async {
        // Given the smallest possible service.
        let executions = Arc::new(AtomicUsize::new(0));
        let store = MemoryStore::new();
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let service = {
            let executions = Arc::clone(&executions);
            service_fn(move |_: Request<Body>| {
                let n = executions.fetch_add(1, Ordering::Relaxed);
                async move { Ok::<_, Infallible>(Response::new(Body::from(n.to_string()))) }
            })
        };
        let service = IdempotencyLayer::new(engine).layer(service);
        let replayed = move |n: usize| {
            let request = Request::post("/pay").header("idempotency-key", format!("k{n}"));
            let response = service
                .clone()
                .oneshot(request.body(Body::empty()).unwrap());
            async move {
                response
                    .await
                    .unwrap()
                    .headers()
                    .contains_key("idempotent-replay")
            }
        };

        // When 300,000 keys have been used.
        let halves = [0..150_000, 150_000..300_000].map(|half| {
            let replayed = replayed.clone();
            tokio::spawn(async move {
                for n in half {
                    assert!(!replayed(n).await, "{n}");
                }
            })
        });
        for half in halves {
            half.await.unwrap();
        }

        // Then each of them is replayed, the first one included.
        for n in [0, 1, 2, 1000, 150_000, 299_999] {
            assert!(replayed(n).await, "{n}");
        }
        assert_eq!(
            (executions.load(Ordering::Relaxed), store.len()),
            (300_000, 300_000)
        );
    });
}

#[test]
fn ten_thousand_waiters_on_one_key_are_woken_together() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder()
            .max_waiters(20_000)
            .max_waiters_per_key(20_000)
            .build()
            .unwrap();
        let app = Adapter::Attribute.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        let waiting: Vec<_> = (0..10_000)
            .map(|_| send_in_task(&app, &TestRequest::payment("k")))
            .collect();
        wait_until(|| waiters(&engine) == 10_000).await;

        // When the execution ends, then all get the outcome of the one execution, together.
        let end = Instant::now();
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        for waiter in waiting {
            let answer = waiter.await.unwrap();
            assert!(
                answer.replayed() && answer.text() == "charge 1",
                "{answer:?}"
            );
        }

        // The benchmark `waiters` measures how fast. A busy machine does not take this long, but waiters that were
        // woken one after the other would.
        assert!(
            end.elapsed() < Duration::from_secs(60),
            "{:?}",
            end.elapsed()
        );
        assert_eq!((handler.starts(), waiters(&engine)), (1, 0));
    });
}

#[test]
fn without_protection_a_retry_charges_twice() {
    // The control: what all these scenarios prevent.
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = unprotected_app(&handler);
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_charge(1);
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_charge(2);
    });
}
