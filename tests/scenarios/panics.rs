//! Panics from every place, each of which is answered (DESIGN.md, section 4).

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::{StatusCode, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use idempotent_runtime::{
    Idempotency, MemoryStore, OnCrash, Policy, Scope, idempotent,
    store::{Acquisition, Claim, Held, Outcome, Record, Store, StoreError, Token, Wake, Write},
};

use crate::support::{
    CountingHandler, TestRequest, advance, crash, send, send_in_task, with_each_adapter,
    with_paused_clock,
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

/// Panics while the counter is below its limit.
#[derive(Clone, Default)]
pub(super) struct Panics(Arc<AtomicUsize>);

impl Panics {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl<S: Sync> FromRequestParts<S> for Panics {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let counter = parts.extensions.get::<Self>().unwrap().clone();
        assert!(
            counter.0.fetch_add(1, Ordering::SeqCst) > 0,
            "the extractor"
        );
        Ok(counter)
    }
}

#[idempotent]
pub(super) async fn extracting(_: Panics) -> (StatusCode, &'static str) {
    (StatusCode::CREATED, "charge 1")
}

/// Not an `async fn`: its own code runs before it returns its future.
#[idempotent]
pub(super) fn before_the_future(
    Extension(starts): Extension<Panics>,
) -> impl Future<Output = String> {
    let n = starts.0.fetch_add(1, Ordering::SeqCst);
    assert!(n > 0, "the handler, before its future");
    std::future::ready(format!("start {n}"))
}

#[test]
fn a_panic_of_an_extractor_releases_the_key() {
    with_paused_clock(async {
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/pay", post(extracting))
            .layer(Extension(Panics::default()))
            .layer(Extension(engine));
        let answer = send(&app, &payment()).await;
        answer.assert_problem(500, "handler_panicked");
        assert_eq!(answer.json()["action"], "retry_same_key");
        send(&app, &payment()).await.assert_charge(1);
    });
}

#[test]
fn a_panic_of_a_handler_before_its_future_is_a_panic_of_the_handler() {
    with_paused_clock(async {
        let starts = Panics::default();
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/pay", post(before_the_future))
            .layer(Extension(starts.clone()))
            .layer(Extension(engine));
        for _ in 0..2 {
            let answer = send(&app, &payment()).await;
            answer.assert_problem(500, "handler_panicked");
            assert_eq!(answer.json()["action"], "none");
        }
        assert_eq!(starts.count(), 1, "it started once");
    });
}

#[test]
fn a_panic_of_a_scope_function_is_answered_and_claims_nothing() {
    with_each_adapter(async |adapter| {
        let calls = AtomicUsize::new(0);
        let scope = move |_: &Parts| {
            assert!(calls.fetch_add(1, Ordering::SeqCst) > 0, "the scope");
            Some(Scope::new("tenant"))
        };
        let engine = Idempotency::builder().scope(scope).build().unwrap();
        let handler = CountingHandler::new();
        let app = adapter.app(&engine, &handler);
        send(&app, &payment())
            .await
            .assert_problem(500, "handler_panicked");
        send(&app, &payment()).await.assert_charge(1);
    });
}

/// A body that panics somewhere.
pub(super) struct Fragile(pub(super) &'static str);

impl HttpBody for Fragile {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert_ne!(self.0, "poll_frame");
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        assert_ne!(self.0, "size_hint");
        SizeHint::with_exact(0)
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert_ne!(self.0, "drop");
    }
}

#[test]
fn a_panic_of_a_response_body_is_answered_and_never_executed_again() {
    with_each_adapter(async |adapter| {
        for place in ["poll_frame", "size_hint", "drop"] {
            let handler =
                CountingHandler::responding(move |_| Body::new(Fragile(place)).into_response());
            let engine = Idempotency::builder().build().unwrap();
            let app = adapter.app(&engine, &handler);
            let first = send_in_task(&app, &payment()).await;
            let first = first.unwrap_or_else(|_| panic!("{place}: the request was not answered"));
            assert!(
                first.status == 200 || first.code() == "response_not_stored",
                "{place}: {first:?}"
            );
            let second = send(&app, &payment()).await;
            assert!(
                second.replayed() || second.code() == "response_not_stored",
                "{place}: {second:?}"
            );
            assert_eq!(handler.starts(), 1, "{place}");
        }
    });
}

/// Panics when it is dropped.
#[derive(Clone)]
pub(super) struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "the destructor");
    }
}

#[test]
fn a_panic_of_a_destructor_of_the_handler_is_answered() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::running(|n, _| {
            let grenade = Grenade;
            Box::pin(async move {
                let response: Response =
                    (StatusCode::CREATED, format!("charge {n}")).into_response();
                drop(grenade);
                response
            })
        });
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        for _ in 0..2 {
            let answer = send_in_task(&app, &payment()).await.expect("an answer");
            answer.assert_problem(500, "handler_panicked");
        }
        assert_eq!(handler.starts(), 1);
    });
}

/// A store of the user's own whose renewals panic.
#[derive(Clone)]
struct PanicsOnRenew(MemoryStore);

impl Store for PanicsOnRenew {
    fn name(&self) -> &'static str {
        "fragile"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.0.acquire(claim).await
    }

    async fn renew(&self, _: &Held) -> Result<Write, StoreError> {
        panic!("the store");
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.0.complete(held, outcome).await
    }

    async fn release(
        &self,
        key: &idempotent_runtime::StoreKey,
        token: &Token,
    ) -> Result<Write, StoreError> {
        self.0.release(key, token).await
    }

    async fn abandon(
        &self,
        key: &idempotent_runtime::StoreKey,
        token: &Token,
    ) -> Result<Write, StoreError> {
        self.0.abandon(key, token).await
    }

    async fn get(&self, key: &idempotent_runtime::StoreKey) -> Result<Option<Record>, StoreError> {
        self.0.get(key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.0.purge_expired(limit).await
    }

    fn attach(&self, wake: Wake) {
        self.0.attach(wake);
    }

    fn inspectable(&self) -> Option<&dyn idempotent_runtime::store::Inspectable> {
        self.0.inspectable()
    }
}

#[test]
fn a_store_that_panics_on_renewal_does_not_end_the_execution() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder()
            .store(PanicsOnRenew(MemoryStore::new()))
            .policy(Policy::new())
            .build()
            .unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        advance(Duration::from_secs(60)).await;
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        send(&app, &payment()).await.assert_replay_of_charge(1);
    });
}

/// Where an extractor panics for the first time.
#[derive(Clone, Copy, Debug)]
enum Place {
    BeforeItsFuture,
    AfterAnAwait,
    InItsRejection,
}

/// An extractor that panics in this place, once.
struct PanicsOnce;

/// Its rejection.
struct Rejection;

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        panic!("the rejection");
    }
}

impl<S: Sync> FromRequestParts<S> for PanicsOnce {
    type Rejection = Rejection;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Rejection>> + Send {
        let extensions = &parts.extensions;
        let place = *extensions.get::<Place>().unwrap();
        let first = extensions
            .get::<Panics>()
            .unwrap()
            .0
            .fetch_add(1, Ordering::SeqCst)
            == 0;
        assert!(
            !(first && matches!(place, Place::BeforeItsFuture)),
            "before the future"
        );
        async move {
            tokio::task::yield_now().await;
            match place {
                Place::AfterAnAwait if first => panic!("after an await"),
                Place::InItsRejection if first => Err(Rejection),
                _ => Ok(Self),
            }
        }
    }
}

#[idempotent]
async fn extracting_once(_: PanicsOnce) -> (StatusCode, &'static str) {
    (StatusCode::CREATED, "charge 1")
}

#[test]
fn a_panic_of_an_extractor_releases_the_key_wherever_it_happens() {
    with_paused_clock(async {
        for place in [
            Place::BeforeItsFuture,
            Place::AfterAnAwait,
            Place::InItsRejection,
        ] {
            let engine = Idempotency::builder().build().unwrap();
            let app = Router::new()
                .route("/pay", post(extracting_once))
                .layer(Extension(place))
                .layer(Extension(Panics::default()))
                .layer(Extension(engine));
            let answer = send(&app, &payment()).await;
            answer.assert_problem(500, "handler_panicked");
            assert_eq!(answer.json()["action"], "retry_same_key", "{place:?}");
            send(&app, &payment()).await.assert_charge(1);
        }
    });
}

/// What the handler returns, after its effect.
struct Unpresentable;

impl IntoResponse for Unpresentable {
    fn into_response(self) -> Response {
        panic!("the response");
    }
}

#[idempotent]
async fn returning(starts: Extension<Panics>) -> Unpresentable {
    starts.0.0.fetch_add(1, Ordering::SeqCst);
    Unpresentable
}

#[test]
fn a_panic_of_the_conversion_of_a_response_is_a_panic_of_the_handler() {
    with_paused_clock(async {
        let starts = Panics::default();
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/pay", post(returning))
            .layer(Extension(starts.clone()))
            .layer(Extension(engine));
        for _ in 0..2 {
            let answer = send(&app, &payment()).await;
            answer.assert_problem(500, "handler_panicked");
            assert_eq!(answer.json()["action"], "none");
        }
        assert_eq!(starts.count(), 1);
    });
}

#[test]
fn a_panic_of_a_recovery_function_leaves_the_outcome_unknown_wherever_it_happens() {
    with_each_adapter(async |adapter| {
        let before: OnCrash = OnCrash::Recover(|_| panic!("before the future"));
        let within = OnCrash::Recover(|_| {
            Box::pin(async {
                tokio::task::yield_now().await;
                panic!("after an await")
            })
        });
        for on_crash in [before, within] {
            let (handler, records) = (CountingHandler::new(), MemoryStore::new());
            let policy = Policy::new().on_crash(on_crash);
            let builder = || Idempotency::builder().policy(policy.clone());
            handler.close_gate();
            crash(adapter, builder(), records.clone(), &payment(), &handler).await;
            handler.open_gate();
            advance(Duration::from_secs(60)).await;
            let app = adapter.app(&builder().store(records).build().unwrap(), &handler);
            for _ in 0..2 {
                send(&app, &payment())
                    .await
                    .assert_problem(409, "outcome_unknown");
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}
