//! Duplicates of an execution in flight (contract, sections 3 and 10; invariant L1).

use std::time::Duration;

use idempotent_runtime::{Idempotency, IdempotencyLayer, Policy};

use crate::support::{
    Ask, Conn, Face, Fault, Faulty, Server, Till, Verb, ask, asking, both, by_hand, pass, plain,
    real, settle, until, waiters,
};

fn payment() -> Ask {
    Ask::pay("k")
}

fn engine(policy: Policy) -> Idempotency {
    Idempotency::builder().policy(policy).build().unwrap()
}

#[test]
fn a_duplicate_waits_for_the_outcome_and_replays_it() {
    both(async |face| {
        let (till, engine) = (Till::new(), engine(Policy::new()));
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        let second = asking(&shop, &payment());
        pass(Duration::from_secs(10)).await;
        assert!(!second.is_finished());
        till.open();
        first.await.unwrap().is_charge(1);
        second.await.unwrap().is_replay_of_charge(1);
        assert_eq!((till.starts(), waiters(&engine)), (1, 0));
    });
}

#[test]
fn a_duplicate_that_may_not_wait_gets_a_conflict_at_once() {
    both(async |face| {
        let (till, engine) = (Till::new(), engine(Policy::new().wait(false)));
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        ask(&shop, &payment()).await.is_problem(409, "conflict");
        till.open();
        first.await.unwrap().is_charge(1);
        ask(&shop, &payment()).await.is_replay_of_charge(1);
    });
}

#[test]
fn a_duplicate_waits_no_longer_than_it_may() {
    both(async |face| {
        for timeout in [1, 30, 100] {
            let timeout = Duration::from_secs(timeout);
            let (till, engine) = (Till::new(), engine(Policy::new().wait_timeout(timeout)));
            let shop = face.shop(&engine, &till);
            till.hold();
            let first = asking(&shop, &payment());
            till.started(1).await;
            let second = asking(&shop, &payment());
            settle().await;
            pass(timeout / 10 * 9).await;
            assert!(!second.is_finished());
            pass(timeout / 10 + Duration::from_millis(100)).await;
            assert!(second.is_finished());
            let answer = second.await.unwrap();
            answer.is_problem(409, "conflict");
            assert!(answer.headers.contains_key("retry-after"));
            till.open();
            first.await.unwrap().is_charge(1);
        }
    });
}

#[test]
fn a_request_for_something_else_is_a_mismatch_in_every_state_of_the_record() {
    both(async |face| {
        for policy in [Policy::new(), Policy::new().wait(false)] {
            // Given a key in flight.
            let (till, engine) = (Till::new(), engine(policy));
            let shop = face.shop(&engine, &till);
            till.hold();
            let first = asking(&shop, &payment());
            till.started(1).await;
            let others = [
                payment().body(r#"{"amount":101}"#),
                payment().body(""),
                payment().header("content-type", "text/plain"),
                payment().header("authorization", "Bearer x"),
                Ask {
                    path: "/pay?a=1".into(),
                    ..payment()
                },
            ];

            // Then another request under it is told so at once: it does not wait, and a conflict comes second.
            for other in &others {
                ask(&shop, other).await.is_problem(409, "mismatch");
            }
            till.open();
            first.await.unwrap().is_charge(1);
            for other in &others {
                ask(&shop, other).await.is_problem(409, "mismatch");
            }
            ask(&shop, &payment()).await.is_replay_of_charge(1);
            assert_eq!(till.starts(), 1);
        }
    });
}

#[test]
fn what_a_client_may_spell_differently_is_no_mismatch() {
    both(async |face| {
        let (till, engine) = (Till::new(), engine(Policy::new()));
        let shop = face.shop(&engine, &till);
        let spelled = |path: &str, content_type: &str| {
            let ask = Ask::post(path).key("k").body("{}");
            ask.header("content-type", content_type)
                .header("x-try", path)
        };
        ask(&shop, &spelled("/pay?b=2&a=1", "application/json"))
            .await
            .is_charge(1);
        for (path, content_type) in [
            ("/pay?a=1&b=2", "application/json"),
            ("/pay?b=2&a=1", "Application/JSON; charset=UTF-8"),
        ] {
            ask(&shop, &spelled(path, content_type))
                .await
                .is_replay_of_charge(1);
        }
    });
}

#[test]
fn a_waiter_that_leaves_touches_nothing() {
    real(async {
        let (till, engine) = (Till::new(), engine(Policy::new()));
        let server = Server::start(Face::Attribute.shop(&engine, &till)).await;
        till.hold();
        let mut first = Conn::open(server.address).await;
        first.send(&payment().wire()).await;
        till.started(1).await;

        // When many duplicates come, and most of them leave again, the longest waiting first.
        let mut conns = Vec::new();
        for n in 1..=20 {
            let mut conn = Conn::open(server.address).await;
            conn.send(&payment().wire()).await;
            until(|| waiters(&engine) == n).await;
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
        until(|| waiters(&engine) == 5).await;

        // Then those who stayed are answered all the same.
        till.open();
        first.answer().await.is_charge(1);
        for mut conn in stay {
            conn.answer().await.is_replay_of_charge(1);
        }
        assert_eq!(till.starts(), 1);
        until(|| waiters(&engine) == 0).await;
    });
}

#[test]
fn a_key_that_is_released_falls_to_one_waiter_at_a_time() {
    both(async |face| {
        // Given an execution that asks to come again, and ten who wait for it.
        let (till, engine) = (Till::refusing_first(503), engine(Policy::new()));
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        let waiting: Vec<_> = (0..10).map(|_| asking(&shop, &payment())).collect();
        settle().await;
        assert_eq!(waiters(&engine), 10);

        // When it ends, then one of them executes, and the others show its outcome.
        till.open();
        assert_eq!(first.await.unwrap().status, 503);
        let mut first_hand = 0;
        for waiter in waiting {
            let answer = waiter.await.unwrap();
            assert_eq!(answer.text(), "charge 2");
            first_hand += usize::from(!answer.replayed());
        }
        assert_eq!((first_hand, till.starts()), (1, 2));
    });
}

#[test]
fn a_waiter_whose_key_went_to_another_request_is_told_so() {
    both(async |face| {
        // Given a waiter for an execution whose key is then released and used for something else.
        let (till, store) = (Till::refusing_first(429), Faulty::mute());
        let here = Idempotency::builder().store(store.clone()).build().unwrap();
        let there = Idempotency::builder().store(store.clone()).build().unwrap();
        let (shop, other) = (face.shop(&here, &till), face.shop(&there, &till));
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        let waiter = asking(&other, &payment());
        settle().await;
        till.release(1);
        assert_eq!(first.await.unwrap().status, 429);
        let second = asking(&shop, &payment().body("{}"));
        till.started(2).await;

        // Then it is a mismatch, and not an outcome of the other request.
        pass(Duration::from_secs(1)).await;
        waiter.await.unwrap().is_problem(409, "mismatch");
        till.open();
        second.await.unwrap().is_charge(2);
    });
}

#[test]
fn two_engines_on_one_store_wait_for_each_other() {
    both(async |face| {
        for store in [Faulty::new(), Faulty::mute()] {
            // Given an execution in one process, and duplicates in another; a store that wakes, or never does.
            let till = Till::new();
            let engine = || Idempotency::builder().store(store.clone()).build().unwrap();
            let (here, there) = (engine(), engine());
            let (one, other) = (face.shop(&here, &till), face.shop(&there, &till));
            till.hold();
            let first = asking(&one, &payment());
            till.started(1).await;
            let waiting: Vec<_> = (0..50).map(|_| asking(&other, &payment())).collect();
            settle().await;
            assert_eq!(waiters(&there), 50);

            // When they wait for long, then one of them looks at the store for all, at most twice a second.
            let before = store.calls(Verb::Acquire);
            pass(Duration::from_secs(20)).await;
            let looks = store.calls(Verb::Acquire) - before;
            assert!((20..=70).contains(&looks), "{looks} looks in 20 seconds");

            // And when the outcome is there, all of them get it within the longest pause.
            till.open();
            first.await.unwrap().is_charge(1);
            pass(Duration::from_millis(700)).await;
            for waiter in waiting {
                assert!(waiter.is_finished());
                waiter.await.unwrap().is_replay_of_charge(1);
            }
            assert_eq!(till.starts(), 1);
        }
    });
}

#[test]
fn a_waiter_returns_by_its_deadline_even_if_nothing_ever_answers() {
    both(async |face| {
        for outage in [Fault::Down, Fault::Silent] {
            let (till, store) = (Till::new(), Faulty::mute());
            let engine = Idempotency::builder().store(store.clone()).build().unwrap();
            let shop = face.shop(&engine, &till);
            till.hold();
            let _first = asking(&shop, &payment());
            till.started(1).await;
            let waiting: Vec<_> = (0..5).map(|_| asking(&shop, &payment())).collect();
            settle().await;
            store.always(Verb::Acquire, outage);
            pass(Duration::from_secs(33)).await;
            for waiter in waiting {
                assert!(waiter.is_finished());
                let answer = waiter.await.unwrap();
                let code = answer.code();
                assert!(
                    ["conflict", "store_unavailable"].contains(&code.as_str()),
                    "{code}"
                );
            }
            assert_eq!((till.starts(), waiters(&engine)), (1, 0));
        }
    });
}

#[test]
fn a_waiter_gets_the_outcome_once_a_store_that_was_down_is_back() {
    both(async |face| {
        let (till, store) = (Till::new(), Faulty::mute());
        let engine = || Idempotency::builder().store(store.clone()).build().unwrap();
        let (one, other) = (face.shop(&engine(), &till), face.shop(&engine(), &till));
        till.hold();
        let first = asking(&one, &payment());
        till.started(1).await;
        let waiter = asking(&other, &payment());
        settle().await;
        store.always(Verb::Acquire, Fault::Down);
        pass(Duration::from_secs(5)).await;
        till.open();
        first.await.unwrap().is_charge(1);
        pass(Duration::from_secs(5)).await;
        store.heal();
        pass(Duration::from_secs(1)).await;
        waiter.await.unwrap().is_replay_of_charge(1);
    });
}

#[test]
fn the_places_to_wait_are_bounded_per_key_and_per_process() {
    both(async |face| {
        for (per_key, in_all, keys) in [(3, 100, 1), (100, 5, 5)] {
            // Given engines with few places, all of them taken.
            let till = Till::new();
            let engine = Idempotency::builder()
                .max_waiters_per_key(per_key)
                .max_waiters(in_all)
                .build()
                .unwrap();
            let shop = face.shop(&engine, &till);
            till.hold();
            let of = |n: usize| Ask::pay(&format!("k{}", n % keys));
            let first: Vec<_> = (0..keys).map(|n| asking(&shop, &of(n))).collect();
            till.started(keys).await;
            let places = per_key.min(in_all);
            let mut waiting: Vec<_> = (0..places).map(|n| asking(&shop, &of(n))).collect();
            settle().await;
            assert_eq!(waiters(&engine), places);

            // When one more comes, then it is told to come later, and executes nothing.
            for n in 0..keys {
                let answer = ask(&shop, &of(n)).await;
                answer.is_problem(503, "overloaded");
                assert!(answer.headers.contains_key("retry-after"));
            }

            // And a place that was given back can be taken again.
            waiting.pop().unwrap().abort();
            settle().await;
            waiting.push(asking(&shop, &of(0)));
            settle().await;
            assert_eq!(waiters(&engine), places);
            till.open();
            for (n, answer) in first.into_iter().enumerate() {
                assert_eq!(answer.await.unwrap().status, 201, "{n}");
            }
            for waiter in waiting {
                assert!(waiter.await.unwrap().replayed());
            }
            assert_eq!((till.starts(), waiters(&engine)), (keys, 0));
        }
    });
}

#[test]
fn a_client_that_left_while_its_claim_was_under_way_takes_no_place() {
    by_hand(async {
        // Given a duplicate whose acquire is under way when its client leaves.
        let (till, store) = (Till::new(), Faulty::new());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let shop = Face::Attribute.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        let looker = asking(&shop, &payment());
        settle().await;
        store.next(Verb::Acquire, Fault::Slow);
        let leaving = asking(&shop, &payment());
        tokio::task::yield_now().await;
        leaving.abort();
        settle().await;

        // Then it does not sit there for nobody.
        assert_eq!(waiters(&engine), 1);
        till.open();
        first.await.unwrap().is_charge(1);
        looker.await.unwrap().is_replay_of_charge(1);
    });
}

#[test]
fn when_the_one_who_looks_for_all_leaves_another_looks() {
    both(async |face| {
        // Given a store that wakes nobody, an execution elsewhere, and a looker with less patience than the rest.
        let (till, store) = (Till::new(), Faulty::mute());
        let elsewhere = Idempotency::builder().store(store.clone()).build().unwrap();
        let elsewhere = face.shop(&elsewhere, &till);
        let here = Idempotency::builder().store(store).build().unwrap();
        let patient = face.shop(&here, &till);
        let hasty = IdempotencyLayer::new(here.clone());
        let hasty = hasty.policy(Policy::new().wait_timeout(Duration::from_secs(2)));
        let hasty = plain(&till).route_layer(hasty);
        till.hold();
        let first = asking(&elsewhere, &payment());
        till.started(1).await;
        let looker = asking(&hasty, &payment());
        settle().await;
        let waiting: Vec<_> = (0..5).map(|_| asking(&patient, &payment())).collect();
        settle().await;

        // When its time is over, then the others are still served.
        pass(Duration::from_secs(3)).await;
        looker.await.unwrap().is_problem(409, "conflict");
        assert_eq!(waiters(&here), 5);
        till.open();
        first.await.unwrap().is_charge(1);
        pass(Duration::from_secs(1)).await;
        for waiter in waiting {
            waiter.await.unwrap().is_replay_of_charge(1);
        }
    });
}

#[test]
fn those_who_wait_for_a_response_that_is_not_kept_are_told_so() {
    both(async |face| {
        let (till, engine) = (Till::new(), engine(Policy::new().max_response(3)));
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        let waiter = asking(&shop, &payment());
        settle().await;
        till.open();
        first.await.unwrap().is_charge(1);
        waiter.await.unwrap().is_problem(409, "response_not_stored");
        assert_eq!(till.starts(), 1);
    });
}

#[test]
fn a_waiter_never_gets_the_outcome_of_a_request_for_something_else() {
    both(async |face| {
        // Given a waiter for an execution that will give its key back.
        let (till, engine) = (Till::refusing_first(429), engine(Policy::new()));
        let shop = face.shop(&engine, &till);
        till.hold();
        let first = asking(&shop, &payment());
        till.started(1).await;
        let waiter = asking(&shop, &payment());
        settle().await;
        assert_eq!(waiters(&engine), 1);

        // When another request takes the key and completes before the waiter has its turn.
        till.open();
        let other = asking(&shop, &payment().body("{}"));
        assert_eq!(first.await.unwrap().status, 429);
        other.await.unwrap().is_charge(2);

        // Then what was published is not the waiter's outcome.
        waiter.await.unwrap().is_problem(409, "mismatch");
        assert_eq!(till.starts(), 2);
    });
}

#[test]
fn within_one_process_waiters_are_told_at_once_even_by_a_store_that_wakes_nobody() {
    both(async |face| {
        for status in [201, 429] {
            // Given a duplicate that has waited for so long that it rarely looks.
            let (till, store) = (Till::refusing_first(status), Faulty::mute());
            let engine = Idempotency::builder().store(store).build().unwrap();
            let shop = face.shop(&engine, &till);
            till.hold();
            let first = asking(&shop, &payment());
            till.started(1).await;
            let waiter = asking(&shop, &payment());
            pass(Duration::from_secs(20)).await;

            // When the execution ends, with an outcome or without one.
            till.open();
            settle().await;

            // Then no time has to pass until the waiter has its answer.
            assert!(first.is_finished() && waiter.is_finished(), "{status}");
            assert_eq!(waiter.await.unwrap().status, 201);
        }
    });
}
