//! The same key with another request (DESIGN.md, sections 3 and 6; invariant I8).

use idempotent_runtime::{Idempotency, Policy};

use crate::support::{
    CountingHandler, Fault, FaultyStore, Operation, TestRequest, send, send_in_task,
    with_each_adapter,
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn engine(policy: Policy) -> Idempotency {
    Idempotency::builder().policy(policy).build().unwrap()
}

#[test]
fn another_request_is_a_mismatch_in_every_state_of_the_record() {
    with_each_adapter(async |adapter| {
        for policy in [Policy::new(), Policy::new().wait(false)] {
            // Given a key in flight.
            let (handler, engine) = (CountingHandler::new(), engine(policy));
            let app = adapter.app(&engine, &handler);
            handler.close_gate();
            let first = send_in_task(&app, &payment());
            handler.started(1).await;
            let others = [
                payment().body(r#"{"amount":101}"#),
                payment().body(""),
                payment().header("content-type", "text/plain"),
                TestRequest {
                    path: "/pay?a=1".into(),
                    ..payment()
                },
            ];

            // Then another request with this key is a mismatch at once: it does not wait, and is no conflict.
            for other in &others {
                send(&app, other).await.assert_problem(409, "mismatch");
            }
            handler.open_gate();
            first.await.unwrap().assert_charge(1);
            for other in &others {
                send(&app, other).await.assert_problem(409, "mismatch");
            }
            send(&app, &payment()).await.assert_replay_of_charge(1);
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[test]
fn equivalent_spellings_of_a_request_are_not_a_mismatch() {
    with_each_adapter(async |adapter| {
        let (handler, engine) = (CountingHandler::new(), engine(Policy::new()));
        let app = adapter.app(&engine, &handler);
        let spelled = |path: &str, content_type: &str| {
            let request = TestRequest::post(path).key("k").body("{}");
            request
                .header("content-type", content_type)
                .header("x-try", path)
        };
        send(&app, &spelled("/pay?b=2&a=1", "application/json"))
            .await
            .assert_charge(1);
        for (path, content_type) in [
            ("/pay?a=1&b=2", "application/json"),
            ("/pay?b=2&a=1", "Application/JSON; charset=UTF-8"),
        ] {
            send(&app, &spelled(path, content_type))
                .await
                .assert_replay_of_charge(1);
        }
    });
}

#[test]
fn a_mismatch_that_the_store_contradicts_itself_about_is_still_a_mismatch() {
    with_each_adapter(async |adapter| {
        // Given a broken store, which refuses the key and names the request's own fingerprint as the other one's.
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = adapter.app(&engine, &handler);

        // Then nothing is executed and nothing is said of the caller; the key is as free as it was.
        for request in [payment(), payment().header("authorization", "Bearer a")] {
            store.fail_next(Operation::Acquire, Fault::OwnMismatch);
            send(&app, &request).await.assert_problem(409, "mismatch");
        }
        assert_eq!(handler.starts(), 0);
        store.heal();
        send(&app, &payment()).await.assert_charge(1);
    });
}
