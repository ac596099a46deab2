//! Many at once, and many in a row (contract, section 11; invariants I2, I4, I5, I15).

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
use idempotent_runtime::{Idempotency, IdempotencyLayer, MemoryStore, Policy, layer::RequestBody};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{
    Answer, Ask, Face, Server, Till, ask, asking, both, by_hand, detached, frames, pass, plain,
    real, settle, until, waiters,
};

#[test]
fn a_hundred_concurrent_duplicates_execute_once_and_get_equal_answers() {
    real(async {
        for face in [Face::Attribute, Face::Layer] {
            let till = Till::new();
            let engine = Idempotency::builder().build().unwrap();
            let server = Arc::new(Server::start(face.shop(&engine, &till)).await);
            till.hold();
            let asking: Vec<_> = (0..100)
                .map(|_| {
                    let server = Arc::clone(&server);
                    tokio::spawn(async move { server.ask(&Ask::pay("k")).await })
                })
                .collect();
            until(|| waiters(&engine) == 99).await;
            till.open();
            let mut first_hand = 0;
            for answer in asking {
                let answer = answer.await.unwrap();
                assert_eq!((answer.status.as_u16(), answer.text()), (201, "charge 1"));
                first_hand += usize::from(!answer.replayed());
            }
            assert_eq!((first_hand, till.starts(), till.effects()), (1, 1, 1));
        }
    });
}

#[test]
fn a_hundred_duplicates_that_race_from_the_start_execute_once() {
    real(async {
        for round in 0..20 {
            let till = Till::new();
            let engine = Idempotency::builder().build().unwrap();
            let shop = Face::Attribute.shop(&engine, &till);
            let asking: Vec<_> = (0..100).map(|_| asking(&shop, &Ask::pay("k"))).collect();
            let mut first_hand = 0;
            for answer in asking {
                let answer = answer.await.unwrap();
                assert_eq!((answer.status.as_u16(), answer.text()), (201, "charge 1"));
                first_hand += usize::from(!answer.replayed());
            }
            assert_eq!(
                (first_hand, till.starts(), waiters(&engine)),
                (1, 1, 0),
                "{round}"
            );
        }
    });
}

#[test]
fn a_thousand_concurrent_keys_execute_once_each() {
    real(async {
        let till = Till::new();
        let store = MemoryStore::new();
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let shop = Face::Attribute.shop(&engine, &till);
        till.hold();
        let keys: Vec<_> = (0..1000).map(|n| Ask::pay(&format!("k{n}"))).collect();
        let first: Vec<_> = keys.iter().map(|key| asking(&shop, key)).collect();
        till.started(1000).await;
        assert_eq!(store.len(), 1000);
        till.open();
        let mut answers = Vec::new();
        for answer in first {
            answers.push(answer.await.unwrap());
        }
        for (key, first) in keys.iter().zip(answers) {
            assert_eq!(first.status, 201);
            let again = ask(&shop, key).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body));
        }
        assert_eq!((till.starts(), till.effects()), (1000, 1000));
    });
}

#[test]
fn after_three_hundred_thousand_keys_the_first_is_still_replayed() {
    real(async {
        // Given a service of the smallest kind.
        let executions = Arc::new(AtomicUsize::new(0));
        let store = MemoryStore::new();
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let service = {
            let executions = Arc::clone(&executions);
            service_fn(move |_: Request<RequestBody<Body>>| {
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

        // Then each of them is still there, the first above all.
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
    real(async {
        let till = Till::new();
        let engine = Idempotency::builder()
            .max_waiters(20_000)
            .max_waiters_per_key(20_000)
            .build()
            .unwrap();
        let shop = Face::Attribute.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &Ask::pay("k"));
        till.started(1).await;
        let waiting: Vec<_> = (0..10_000).map(|_| asking(&shop, &Ask::pay("k"))).collect();
        until(|| waiters(&engine) == 10_000).await;

        // When the execution ends.
        let end = Instant::now();
        till.open();
        first.await.unwrap().is_charge(1);
        for waiter in waiting {
            let answer = waiter.await.unwrap();
            assert!(
                answer.replayed() && answer.text() == "charge 1",
                "{answer:?}"
            );
        }

        // Then all have their answer, of one execution, at once. How fast is for the benchmark to say; a busy machine
        // does not take this long, and waiters that come one after the other do.
        assert!(
            end.elapsed() < Duration::from_secs(10),
            "{:?}",
            end.elapsed()
        );
        assert_eq!((till.starts(), waiters(&engine)), (1, 0));
    });
}

#[test]
fn over_the_bound_of_executions_without_a_client_new_requests_are_refused() {
    both(async |face| {
        // Given as many executions without a client as there may be.
        let till = Till::new();
        let engine = Idempotency::builder().max_detached(3).build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        for n in 1..=3 {
            let leaving = asking(&shop, &Ask::pay(&format!("k{n}")));
            till.started(n).await;
            leaving.abort();
            settle().await;
            assert_eq!(detached(&engine), n);
        }

        // When new requests come, then they are told to come later; those without a key pass.
        for key in ["k1", "k4"] {
            let answer = ask(&shop, &Ask::pay(key)).await;
            answer.is_problem(503, "overloaded");
            assert!(answer.headers.contains_key("retry-after"));
        }
        assert_eq!(till.starts(), 3);
        let keyless = asking(&shop, &Ask::post("/pay"));
        till.started(4).await;

        // And once one of them has ended, they are welcome again.
        till.release(1);
        settle().await;
        assert_eq!(detached(&engine), 2);
        ask(&shop, &Ask::pay("k1")).await.is_replay_of_charge(1);
        till.open();
        ask(&shop, &Ask::pay("k4")).await.is_charge(5);
        keyless.await.unwrap().is_charge(4);
        for n in 1..=3 {
            ask(&shop, &Ask::pay(&format!("k{n}")))
                .await
                .is_replay_of_charge(n);
        }
        assert_eq!(detached(&engine), 0);
    });
}

#[test]
fn the_bound_holds_for_those_who_hold_back_the_end_of_their_body() {
    both(async |face| {
        // Given many requests that were let in while there was room, and hold back the end of their body.
        let till = Till::new();
        let engine = Idempotency::builder().max_detached(3).build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        let requests: Vec<_> = (0..20)
            .map(|n| {
                let (feed, body) = frames();
                let request = Ask::pay(&format!("k{n}")).request_with(body);
                let request = tokio::spawn(shop.clone().oneshot(request));
                (feed, request)
            })
            .collect();
        settle().await;
        assert_eq!(till.starts(), 0);

        // When one after another sends it and leaves.
        let mut refused = 0;
        for (feed, request) in requests {
            drop(feed);
            settle().await;
            if request.is_finished() {
                let answer = Answer::read(request.await.unwrap().unwrap()).await;
                answer.is_problem(503, "overloaded");
                refused += 1;
            } else {
                request.abort();
            }
            settle().await;
            assert!(detached(&engine) <= 3);
        }

        // Then no more execute without a client than may, and the others were told to come later.
        assert_eq!((till.starts(), refused), (3, 17));
        till.open();
        settle().await;
        assert_eq!(detached(&engine), 0);
    });
}

#[test]
fn the_bound_holds_for_those_who_wait() {
    both(async |face| {
        // Given an execution, duplicates of it that wait, and then as many executions without a client as there may be.
        let till = Till::refusing_first(429);
        let engine = Idempotency::builder().max_detached(1).build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &Ask::pay("k"));
        till.started(1).await;
        let waiter = asking(&shop, &Ask::pay("k"));
        let left = asking(&shop, &Ask::pay("other"));
        till.started(2).await;
        left.abort();
        settle().await;
        assert_eq!(detached(&engine), 1);

        // When the key is given back, then whoever waits for it executes only when there is room.
        till.release(1);
        assert_eq!(first.await.unwrap().status, 429);
        pass(Duration::from_secs(5)).await;
        assert_eq!(till.starts(), 2);
        till.release(2);
        till.release(3);
        pass(Duration::from_secs(1)).await;
        waiter.await.unwrap().is_charge(3);
        assert_eq!((till.starts(), detached(&engine)), (3, 0));
    });
}

#[test]
fn a_full_memory_store_refuses_new_keys_and_serves_those_it_has() {
    both(async |face| {
        for store in [
            MemoryStore::builder().max_records(3).build(),
            MemoryStore::builder().max_bytes(150).build(),
        ] {
            let till = Till::new();
            let policy = Policy::new().ttl(Duration::from_secs(60));
            let engine = Idempotency::builder().store(store.clone()).policy(policy);
            let shop = face.shop(&engine.build().unwrap(), &till);
            for n in 1..=3 {
                ask(&shop, &Ask::pay(&format!("k{n}"))).await.is_charge(n);
            }
            let answer = ask(&shop, &Ask::pay("k4")).await;
            answer.is_problem(503, "overloaded");
            assert_eq!(till.starts(), 3);
            ask(&shop, &Ask::pay("k1")).await.is_replay_of_charge(1);

            // And when records expire, there is room again.
            pass(Duration::from_secs(61)).await;
            ask(&shop, &Ask::pay("k4")).await.is_charge(4);
        }
    });
}

#[test]
fn an_execution_in_flight_is_never_evicted() {
    both(async |face| {
        // Given a store that evicts, full of executions in flight.
        let till = Till::new();
        let store = MemoryStore::builder()
            .max_records(2)
            .evict_oldest_completed()
            .build();
        let engine = Idempotency::builder().store(store).build().unwrap();
        let shop = face.shop(&engine, &till);
        till.hold();
        let first: Vec<_> = (1..=2)
            .map(|n| asking(&shop, &Ask::pay(&format!("k{n}"))))
            .collect();
        till.started(2).await;
        ask(&shop, &Ask::pay("k3"))
            .await
            .is_problem(503, "overloaded");

        // When they completed, then the operator's choice is in force, and only then.
        till.open();
        for answer in first {
            assert_eq!(answer.await.unwrap().status, 201);
        }
        ask(&shop, &Ask::pay("k3")).await.is_charge(3);
    });
}

#[test]
fn without_protection_a_retry_charges_twice() {
    // The control: what all these scenarios are for.
    by_hand(async {
        let till = Till::new();
        let shop = plain(&till);
        ask(&shop, &Ask::pay("k")).await.is_charge(1);
        ask(&shop, &Ask::pay("k")).await.is_charge(2);
    });
}
