//! What operators do to records, and the audit of it (`store::admin`; invariants I2, I3).

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use idempotent_runtime::{
    Idempotency, IdempotencyKey, MemoryStore, OperatorError, Resolution, ResolveError, StoreKey,
    store::{
        Administrable as _,
        admin::{Action, Stage},
    },
};

use crate::support::{
    Adapter, CountingHandler, FaultyStore, TestRequest, advance, crash, send, with_paused_clock,
};

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn key_of(engine: &Idempotency) -> StoreKey {
    engine.store_key("POST /pay", None, &IdempotencyKey::new("k").unwrap())
}

/// An engine on a store in which the payment's outcome is unknown.
async fn unknown(handler: &CountingHandler) -> (Idempotency, MemoryStore) {
    let store = MemoryStore::new();
    let builder = Idempotency::builder();
    handler.close_gate();
    crash(Adapter::Layer, builder, store.clone(), &payment(), handler).await;
    handler.open_gate();
    advance(LEASE * 2).await;
    let engine = Idempotency::builder().store(store.clone()).build().unwrap();
    (engine, store)
}

/// Action, stage, and what the record was before and after of every event, oldest first.
async fn acts(store: &MemoryStore) -> Vec<(Action, Stage, String, String)> {
    let kept = store.events(100).await.unwrap();
    let act = |event: &idempotent_runtime::store::admin::Event| {
        (
            event.action,
            event.stage,
            event.before.to_string(),
            event.after.to_string(),
        )
    };
    kept.iter().rev().map(|kept| act(&kept.event)).collect()
}

fn receipt() -> Resolution {
    let mut response = Response::new(Bytes::from_static(b"by hand"));
    *response.status_mut() = StatusCode::CREATED;
    Resolution::Completed(response)
}

#[test]
fn a_resolution_is_kept_before_and_after_it_is_done() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let (engine, store) = unknown(&handler).await;
        let key = key_of(&engine);
        let operator = engine.operator("ann", "the provider has the charge");
        operator.resolve(&key, receipt()).await.unwrap();

        let app = Adapter::Layer.app(&engine, &handler);
        let answer = send(&app, &payment()).await;
        assert!(answer.replayed(), "{answer:?}");
        assert_eq!(handler.starts(), 1);

        let before = || "unknown, attempt 1".to_owned();
        assert_eq!(
            acts(&store).await,
            [
                (Action::Resolve, Stage::Begun, before(), String::new()),
                (
                    Action::Resolve,
                    Stage::Done,
                    before(),
                    "completed with status 201".to_owned()
                ),
            ]
        );
        let kept = store.events(1).await.unwrap().remove(0).event;
        assert_eq!(
            (&*kept.actor, &*kept.reason),
            ("ann", "the provider has the charge")
        );
        assert_eq!(kept.endpoint.as_deref(), Some("POST /pay"));
        assert_eq!(kept.record.len(), 64);
    });
}

#[test]
fn a_forgotten_payment_executes_again_and_nothing_else_is_forgotten() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let (engine, store) = unknown(&handler).await;
        let (key, app) = (key_of(&engine), Adapter::Layer.app(&engine, &handler));
        let operator = engine.operator("ann", "a test payment");

        // Unknown: only a resolution ends that.
        let refused = operator.forget(&key).await;
        assert!(
            matches!(refused, Err(OperatorError::NotCompleted)),
            "{refused:?}"
        );
        assert_eq!(acts(&store).await, []);

        operator.resolve(&key, receipt()).await.unwrap();
        operator.forget(&key).await.unwrap();
        let again = operator.forget(&key).await;
        assert!(
            matches!(again, Err(OperatorError::Resolve(ResolveError::NotFound))),
            "{again:?}"
        );
        let answer = send(&app, &payment()).await;
        assert!(!answer.replayed(), "{answer:?}");
        assert_eq!(handler.starts(), 2);
        let stages: Vec<_> = acts(&store)
            .await
            .iter()
            .map(|act| (act.0, act.1))
            .collect();
        assert_eq!(
            stages,
            [
                (Action::Resolve, Stage::Begun),
                (Action::Resolve, Stage::Done),
                (Action::Forget, Stage::Begun),
                (Action::Forget, Stage::Done),
            ]
        );
    });
}

#[test]
fn an_act_that_fails_is_kept_as_failed_and_a_refused_one_not_at_all() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let store = MemoryStore::new();
        handler.close_gate();
        crash(
            Adapter::Layer,
            Idempotency::builder(),
            store.clone(),
            &payment(),
            &handler,
        )
        .await;
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let key = key_of(&engine);

        // The lease is live: whoever holds it may still complete.
        let early = engine
            .operator("ann", "too early")
            .resolve(&key, receipt())
            .await;
        assert!(
            matches!(early, Err(OperatorError::Resolve(ResolveError::InFlight))),
            "{early:?}"
        );
        let kept = acts(&store).await;
        assert_eq!(kept[1].1, Stage::Failed, "{kept:?}");
        assert!(kept[1].3.contains("in flight"), "{kept:?}");

        advance(LEASE * 2).await;
        let operator = engine.operator("ann", "now");
        operator
            .resolve(&key, Resolution::NotExecuted)
            .await
            .unwrap();
        let length = acts(&store).await.len();
        let gone = operator.resolve(&key, receipt()).await;
        assert!(
            matches!(gone, Err(OperatorError::Resolve(ResolveError::NotFound))),
            "{gone:?}"
        );
        assert_eq!(acts(&store).await.len(), length);
    });
}

#[test]
fn an_operator_changes_nothing_in_a_store_without_an_audit() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let store = FaultyStore::new();
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = Adapter::Layer.app(&engine, &handler);
        handler.open_gate();
        send(&app, &payment()).await;

        let key = key_of(&engine);
        let operator = engine.operator("ann", "why not");
        for refused in [
            operator.forget(&key).await,
            operator.reveal(&key).await.map(drop),
        ] {
            assert!(
                matches!(refused, Err(OperatorError::NotAdministrable)),
                "{refused:?}"
            );
        }
        let answer = send(&app, &payment()).await;
        assert!(answer.replayed(), "{answer:?}");
        assert_eq!(handler.starts(), 1);
    });
}
