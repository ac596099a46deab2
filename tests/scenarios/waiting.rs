//! Duplicates of an execution in flight (DESIGN.md, sections 3 and 10; invariant L1).

use std::time::Duration;

use idempotent_runtime::{Idempotency, IdempotencyLayer, Policy};

use crate::support::{
    Adapter, Conn, CountingHandler, Fault, FaultyStore, Operation, Server, TestRequest, advance,
    in_real_time, run_ready_tasks, send, send_in_task, unprotected_app, wait_until, waiters,
    with_each_adapter, with_paused_clock,
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn engine(policy: Policy) -> Idempotency {
    Idempotency::builder().policy(policy).build().unwrap()
}

#[test]
fn a_duplicate_waits_for_the_outcome_and_replays_it() {
    with_each_adapter(async |adapter| {
        let (handler, engine) = (CountingHandler::new(), engine(Policy::new()));
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        let second = send_in_task(&app, &payment());
        advance(Duration::from_secs(10)).await;
        assert!(!second.is_finished());
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        second.await.unwrap().assert_replay_of_charge(1);
        assert_eq!((handler.starts(), waiters(&engine)), (1, 0));
    });
}

#[test]
fn a_duplicate_that_may_not_wait_gets_a_conflict_at_once() {
    with_each_adapter(async |adapter| {
        let (handler, engine) = (CountingHandler::new(), engine(Policy::new().wait(false)));
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        send(&app, &payment()).await.assert_problem(409, "conflict");
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        send(&app, &payment()).await.assert_replay_of_charge(1);
    });
}

#[test]
fn a_duplicate_waits_no_longer_than_it_may() {
    with_each_adapter(async |adapter| {
        for timeout in [1, 30, 100] {
            let timeout = Duration::from_secs(timeout);
            let (handler, engine) = (
                CountingHandler::new(),
                engine(Policy::new().wait_timeout(timeout)),
            );
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            let first = send_in_task(&app, &payment());
            handler.started(1).await;
            let second = send_in_task(&app, &payment());
            run_ready_tasks().await;
            advance(timeout / 10 * 9).await;
            assert!(!second.is_finished());
            advance(timeout / 10 + Duration::from_millis(100)).await;
            assert!(second.is_finished());
            let answer = second.await.unwrap();
            answer.assert_problem(409, "conflict");
            assert!(answer.headers.contains_key("retry-after"));
            handler.open_gate();
            first.await.unwrap().assert_charge(1);
        }
    });
}

#[test]
fn a_waiter_that_disconnects_changes_nothing_for_the_others() {
    in_real_time(async {
        let (handler, engine) = (CountingHandler::new(), engine(Policy::new()));
        let server = Server::start(Adapter::Attribute.app(&engine, &handler)).await;
        handler.close_gate();
        let mut first = Conn::open(server.address).await;
        first.send(&payment().wire()).await;
        handler.started(1).await;

        // When many duplicates wait, and most of them disconnect again, the longest waiting first.
        let mut conns = Vec::new();
        for n in 1..=20 {
            let mut conn = Conn::open(server.address).await;
            conn.send(&payment().wire()).await;
            wait_until(|| waiters(&engine) == n).await;
            conns.push(conn);
        }
        let stay = conns.split_off(15);
        for (n, conn) in conns.into_iter().enumerate() {
            if n % 2 == 0 {
                conn.close();
            } else {
                conn.reset();
            }
        }
        wait_until(|| waiters(&engine) == 5).await;

        // Then those that stayed are answered.
        handler.open_gate();
        first.answer().await.assert_charge(1);
        for mut conn in stay {
            conn.answer().await.assert_replay_of_charge(1);
        }
        assert_eq!(handler.starts(), 1);
        wait_until(|| waiters(&engine) == 0).await;
    });
}

#[test]
fn a_released_key_goes_to_one_waiter_at_a_time() {
    with_each_adapter(async |adapter| {
        // Given an execution whose status releases the key, and ten waiters.
        let (handler, engine) = (
            CountingHandler::with_first_status(429),
            engine(Policy::new()),
        );
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        let waiting: Vec<_> = (0..10).map(|_| send_in_task(&app, &payment())).collect();
        run_ready_tasks().await;
        assert_eq!(waiters(&engine), 10);

        // When it ends, then one of them executes, and the others get its outcome.
        handler.open_gate();
        assert_eq!(first.await.unwrap().status, 429);
        let mut first_hand = 0;
        for waiter in waiting {
            let answer = waiter.await.unwrap();
            assert_eq!(answer.text(), "charge 2");
            first_hand += usize::from(!answer.replayed());
        }
        assert_eq!((first_hand, handler.starts()), (1, 2));
    });
}

#[test]
fn a_waiter_whose_key_went_to_another_request_gets_a_mismatch() {
    with_each_adapter(async |adapter| {
        // Given a waiter for an execution whose key is then released and used for another request.
        let (handler, store) = (
            CountingHandler::with_first_status(429),
            FaultyStore::without_wakes(),
        );
        let here = Idempotency::builder().store(store.clone()).build().unwrap();
        let there = Idempotency::builder().store(store.clone()).build().unwrap();
        let (app, other) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        let waiter = send_in_task(&other, &payment());
        run_ready_tasks().await;
        handler.let_through(1);
        assert_eq!(first.await.unwrap().status, 429);
        let second = send_in_task(&app, &payment().body("{}"));
        handler.started(2).await;

        // Then it is a mismatch, and not an outcome of the other request.
        advance(Duration::from_secs(1)).await;
        waiter.await.unwrap().assert_problem(409, "mismatch");
        handler.open_gate();
        second.await.unwrap().assert_charge(2);
    });
}

#[test]
fn two_engines_on_one_store_wait_for_each_other() {
    with_each_adapter(async |adapter| {
        for store in [FaultyStore::new(), FaultyStore::without_wakes()] {
            // Given an execution in one process and waiters in another, on a store with wakes or without.
            let handler = CountingHandler::new();
            let engine = || Idempotency::builder().store(store.clone()).build().unwrap();
            let (here, there) = (engine(), engine());
            let (one, other) = (adapter.app(&here, &handler), adapter.app(&there, &handler));
            handler.close_gate();
            let first = send_in_task(&one, &payment());
            handler.started(1).await;
            let waiting: Vec<_> = (0..50).map(|_| send_in_task(&other, &payment())).collect();
            run_ready_tasks().await;
            assert_eq!(waiters(&there), 50);

            // When they wait for long, then one of them polls the store for all, about twice a second.
            let before = store.calls(Operation::Acquire);
            advance(Duration::from_secs(20)).await;
            let polls = store.calls(Operation::Acquire) - before;
            assert!((20..=70).contains(&polls), "{polls} polls in 20 seconds");

            // And when the outcome is stored, all of them get it within the longest pause between two polls.
            handler.open_gate();
            first.await.unwrap().assert_charge(1);
            advance(Duration::from_millis(700)).await;
            for waiter in waiting {
                assert!(waiter.is_finished());
                waiter.await.unwrap().assert_replay_of_charge(1);
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn a_waiter_returns_by_its_deadline_even_if_the_store_never_answers() {
    with_each_adapter(async |adapter| {
        for outage in [Fault::Unreachable, Fault::Hang] {
            // Given waiters for an execution in another process.
            let (handler, store) = (CountingHandler::new(), FaultyStore::without_wakes());
            let [elsewhere, engine] = [(); 2].map(|()| {
                let engine = Idempotency::builder().store(store.clone());
                engine.build().unwrap()
            });
            let (elsewhere, app) = (
                adapter.app(&elsewhere, &handler),
                adapter.app(&engine, &handler),
            );
            handler.close_gate();
            let _first = send_in_task(&elsewhere, &payment());
            handler.started(1).await;
            let waiting: Vec<_> = (0..5).map(|_| send_in_task(&app, &payment())).collect();
            run_ready_tasks().await;

            // When the store fails until their time-out and beyond, then each is answered by then.
            store.fail_always(Operation::Acquire, outage);
            advance(Duration::from_secs(33)).await;
            for waiter in waiting {
                assert!(waiter.is_finished());
                let answer = waiter.await.unwrap();
                let code = answer.code();
                assert!(
                    ["conflict", "store_unavailable"].contains(&code.as_str()),
                    "{code}"
                );
            }
            assert_eq!((handler.starts(), waiters(&engine)), (1, 0));
        }
    });
}

#[test]
fn a_waiter_gets_the_outcome_once_an_unreachable_store_is_back() {
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::without_wakes());
        let engine = || Idempotency::builder().store(store.clone()).build().unwrap();
        let (one, other) = (
            adapter.app(&engine(), &handler),
            adapter.app(&engine(), &handler),
        );
        handler.close_gate();
        let first = send_in_task(&one, &payment());
        handler.started(1).await;
        let waiter = send_in_task(&other, &payment());
        run_ready_tasks().await;
        store.fail_always(Operation::Acquire, Fault::Unreachable);
        advance(Duration::from_secs(5)).await;
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        advance(Duration::from_secs(5)).await;
        store.heal();
        advance(Duration::from_secs(1)).await;
        waiter.await.unwrap().assert_replay_of_charge(1);
    });
}

#[test]
fn waiters_are_bounded_per_key_and_per_process() {
    with_each_adapter(async |adapter| {
        for (per_key, in_all, keys) in [(3, 100, 1), (100, 5, 5)] {
            // Given engines with as many waiters as are allowed.
            let handler = CountingHandler::new();
            let engine = Idempotency::builder()
                .max_waiters_per_key(per_key)
                .max_waiters(in_all)
                .build()
                .unwrap();
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            let of = |n: usize| TestRequest::payment(&format!("k{}", n % keys));
            let first: Vec<_> = (0..keys).map(|n| send_in_task(&app, &of(n))).collect();
            handler.started(keys).await;
            let allowed = per_key.min(in_all);
            let mut waiting: Vec<_> = (0..allowed).map(|n| send_in_task(&app, &of(n))).collect();
            run_ready_tasks().await;
            assert_eq!(waiters(&engine), allowed);

            // When one more duplicate arrives, then it gets `conflict` at once, as one that may not wait.
            for n in 0..keys {
                let answer = send(&app, &of(n)).await;
                answer.assert_problem(409, "conflict");
                assert!(answer.headers.contains_key("retry-after"));
            }

            // And when a waiter disconnects, another one may wait.
            waiting.pop().unwrap().abort();
            run_ready_tasks().await;
            waiting.push(send_in_task(&app, &of(0)));
            run_ready_tasks().await;
            assert_eq!(waiters(&engine), allowed);
            handler.open_gate();
            for (n, answer) in first.into_iter().enumerate() {
                assert_eq!(answer.await.unwrap().status, 201, "{n}");
            }
            for waiter in waiting {
                assert!(waiter.await.unwrap().replayed());
            }
            assert_eq!((handler.starts(), waiters(&engine)), (keys, 0));
        }
    });
}

#[test]
fn a_duplicate_that_disconnects_during_its_acquire_does_not_count_as_a_waiter() {
    with_paused_clock(async {
        // Given an execution in another process, and a duplicate that disconnects while its acquire is on its way.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let [elsewhere, engine] = [(); 2].map(|()| {
            let engine = Idempotency::builder().store(store.clone());
            engine.build().unwrap()
        });
        let elsewhere = Adapter::Attribute.app(&elsewhere, &handler);
        let app = Adapter::Attribute.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&elsewhere, &payment());
        handler.started(1).await;
        let waiter = send_in_task(&app, &payment());
        run_ready_tasks().await;
        let acquires = store.calls(Operation::Acquire);
        store.fail_next(Operation::Acquire, Fault::Slow);
        let leaving = send_in_task(&app, &payment());
        tokio::task::yield_now().await;
        assert_eq!(store.calls(Operation::Acquire), acquires + 1);
        leaving.abort();
        run_ready_tasks().await;

        // Then it does not count as a waiter.
        assert_eq!(waiters(&engine), 1);
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        waiter.await.unwrap().assert_replay_of_charge(1);
    });
}

#[test]
fn when_the_polling_waiter_times_out_another_one_polls() {
    with_each_adapter(async |adapter| {
        // Given a store without wakes, an execution in another process, and a polling waiter with a shorter time-out.
        let (handler, store) = (CountingHandler::new(), FaultyStore::without_wakes());
        let elsewhere = Idempotency::builder().store(store.clone()).build().unwrap();
        let elsewhere = adapter.app(&elsewhere, &handler);
        let here = Idempotency::builder().store(store).build().unwrap();
        let long = adapter.app(&here, &handler);
        let short = IdempotencyLayer::new(here.clone());
        let short = short.policy(Policy::new().wait_timeout(Duration::from_secs(2)));
        let short = unprotected_app(&handler).route_layer(short);
        handler.close_gate();
        let first = send_in_task(&elsewhere, &payment());
        handler.started(1).await;
        let waiter = send_in_task(&short, &payment());
        run_ready_tasks().await;
        let waiting: Vec<_> = (0..5).map(|_| send_in_task(&long, &payment())).collect();
        run_ready_tasks().await;

        // When that waiter times out, then the others are still answered.
        advance(Duration::from_secs(3)).await;
        waiter.await.unwrap().assert_problem(409, "conflict");
        assert_eq!(waiters(&here), 5);
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        advance(Duration::from_secs(1)).await;
        for waiter in waiting {
            waiter.await.unwrap().assert_replay_of_charge(1);
        }
    });
}

#[test]
fn waiters_for_a_response_that_cannot_be_stored_get_response_not_stored() {
    with_each_adapter(async |adapter| {
        let (handler, engine) = (
            CountingHandler::new(),
            engine(Policy::new().max_response(3)),
        );
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        let waiter = send_in_task(&app, &payment());
        run_ready_tasks().await;
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        waiter
            .await
            .unwrap()
            .assert_problem(409, "response_not_stored");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_waiter_never_gets_the_outcome_of_another_request() {
    with_each_adapter(async |adapter| {
        // Given a waiter for an execution that will release its key.
        let (handler, engine) = (
            CountingHandler::with_first_status(429),
            engine(Policy::new()),
        );
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        let waiter = send_in_task(&app, &payment());
        run_ready_tasks().await;
        assert_eq!(waiters(&engine), 1);

        // When another request claims the key and completes before the waiter's turn.
        handler.open_gate();
        let other = send_in_task(&app, &payment().body("{}"));
        assert_eq!(first.await.unwrap().status, 429);
        other.await.unwrap().assert_charge(2);

        // Then the waiter does not get that outcome.
        waiter.await.unwrap().assert_problem(409, "mismatch");
        assert_eq!(handler.starts(), 2);
    });
}

#[test]
fn within_one_process_waiters_are_notified_at_once_even_without_wakes_of_the_store() {
    with_each_adapter(async |adapter| {
        for status in [201, 429] {
            // Given a waiter that has waited for so long that it polls rarely.
            let (handler, store) = (
                CountingHandler::with_first_status(status),
                FaultyStore::without_wakes(),
            );
            let engine = Idempotency::builder().store(store).build().unwrap();
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            let first = send_in_task(&app, &payment());
            handler.started(1).await;
            let waiter = send_in_task(&app, &payment());
            advance(Duration::from_secs(20)).await;

            // When the execution ends, with an outcome or with a release.
            handler.open_gate();
            run_ready_tasks().await;

            // Then the waiter is answered without any time passing.
            assert!(first.is_finished() && waiter.is_finished(), "{status}");
            assert_eq!(waiter.await.unwrap().status, 201);
        }
    });
}
