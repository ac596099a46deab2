//! Services behind the layer that are busy, full, shed load, or fail (DESIGN.md, sections 3 and 8).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError, Router,
    error_handling::HandleErrorLayer,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use http::StatusCode;
use idempotent_runtime::{
    Builder, Idempotency, IdempotencyLayer, MemoryStore, OnCrash, OnStoreError, Policy,
    store::Store,
};
use tokio::sync::watch;
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer,
    load_shed::error::Overloaded,
};

use super::{engine, payment};
use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Operation, PAY, TestRequest, TestResponse,
    advance, crash, detached, run_ready_tasks, send, send_in_task, unprotected_app, waiters,
    with_paused_clock,
};

async fn unavailable(error: BoxError) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("shed: {error}"))
}

fn key(key: &str) -> TestRequest {
    TestRequest::payment(key)
}

/// A permit for this many executions, taken inside the layer.
fn limited(engine: &Idempotency, handler: &CountingHandler, permits: usize) -> Router {
    let stack = ServiceBuilder::new()
        .layer(IdempotencyLayer::new(engine.clone()))
        .layer(GlobalConcurrencyLimitLayer::new(permits));
    unprotected_app(handler).layer(stack)
}

#[test]
pub(super) fn duplicates_take_no_permit_and_replays_need_none() {
    with_paused_clock(async {
        // Given two permits, one of which is taken, and a duplicate that waits.
        let (engine, handler) = (engine(), CountingHandler::new());
        let app = limited(&engine, &handler, 2);
        send(&app, &key("done")).await.assert_charge(1);
        handler.close_gate();
        let first = send_in_task(&app, &key("a"));
        handler.started(2).await;
        let waiting: Vec<_> = (0..5).map(|_| send_in_task(&app, &key("a"))).collect();
        run_ready_tasks().await;
        assert_eq!(waiters(&engine), 5);

        // When another key comes, then it gets the second permit.
        let second = send_in_task(&app, &key("b"));
        handler.started(3).await;

        // And while no permit is left, replays, mismatches and conflicts are answered.
        send(&app, &key("done")).await.assert_replay_of_charge(1);
        send(&app, &key("done").body("other"))
            .await
            .assert_problem(409, "mismatch");
        send(&app, &key("a").body("other"))
            .await
            .assert_problem(409, "mismatch");
        let refused = TestRequest::post(PAY).key("two words");
        send(&app, &refused)
            .await
            .assert_problem(400, "invalid_key");
        advance(Duration::from_secs(31)).await;
        for waiter in waiting {
            waiter.await.unwrap().assert_problem(409, "conflict");
        }

        // And a third key waits for a permit, which a duplicate does not take from it.
        let third = send_in_task(&app, &key("c"));
        let duplicate = send_in_task(&app, &key("c"));
        run_ready_tasks().await;
        assert_eq!((handler.starts(), waiters(&engine)), (3, 1));
        handler.let_through(2);
        first.await.unwrap().assert_charge(2);
        handler.open_gate();
        third.await.unwrap().assert_charge(4);
        duplicate.await.unwrap().assert_replay_of_charge(4);
        second.await.unwrap().assert_charge(3);
    });
}

#[test]
pub(super) fn requests_that_are_not_covered_go_to_a_service_that_was_asked() {
    with_paused_clock(async {
        // Given one permit, taken by a request without a key.
        let (engine, handler) = (engine(), CountingHandler::new());
        let app = limited(&engine, &handler, 1);
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::post(PAY));
        handler.started(1).await;

        // When others come, of which one leaves, then each waits for the permit and gets it in its turn.
        let leaving = send_in_task(&app, &TestRequest::post(PAY));
        let second = send_in_task(&app, &TestRequest::post(PAY));
        let keyed = send_in_task(&app, &key("k"));
        run_ready_tasks().await;
        assert_eq!(handler.starts(), 1);
        leaving.abort();
        handler.let_through(1);
        first.await.unwrap().assert_charge(1);
        handler.open_gate();
        second.await.unwrap().assert_charge(2);
        keyed.await.unwrap().assert_charge(3);
        // Nothing holds the permit after that.
        send(&app, &TestRequest::post(PAY)).await.assert_charge(4);
        send(&app, &key("other")).await.assert_charge(5);
    });
}

#[test]
pub(super) fn one_service_may_serve_covered_requests_and_others_in_turn() {
    with_paused_clock(async {
        // Given one service that is kept, as behind tower's `Buffer`, with one permit.
        let handler = CountingHandler::new();
        let mut service = ServiceBuilder::new()
            .buffer(8)
            .layer(super::idempotency())
            .concurrency_limit(1)
            .service(unprotected_app(&handler));
        for (n, request) in [
            TestRequest::post(PAY),
            key("a"),
            TestRequest::post(PAY),
            key("b"),
        ]
        .into_iter()
        .enumerate()
        {
            let ready = service.ready().await.unwrap();
            let response = ready.call(request.request()).await.unwrap();
            TestResponse::read(response).await.assert_charge(n + 1);
        }
        for (n, request) in [key("a"), key("b")].into_iter().enumerate() {
            let ready = service.ready().await.unwrap();
            let response = ready.call(request.request()).await.unwrap();
            TestResponse::read(response)
                .await
                .assert_replay_of_charge(2 * n + 2);
        }
    });
}

#[test]
pub(super) fn a_shed_request_releases_its_key() {
    with_paused_clock(async {
        for between in [false, true] {
            // Given a layer around load shedding around one permit, which is taken.
            let (engine, handler) = (engine(), CountingHandler::new());
            let outside = ServiceBuilder::new()
                .layer(HandleErrorLayer::new(unavailable))
                .layer(IdempotencyLayer::new(engine.clone()));
            let inside = ServiceBuilder::new()
                .load_shed()
                .layer(GlobalConcurrencyLimitLayer::new(1));
            let app = unprotected_app(&handler);
            let app = if between {
                let time_out = ServiceBuilder::new().timeout(Duration::from_secs(60));
                app.layer(
                    outside
                        .layer(time_out.into_inner())
                        .layer(inside.into_inner()),
                )
            } else {
                app.layer(outside.layer(inside.into_inner()))
            };
            send(&app, &key("done")).await.assert_charge(1);
            handler.close_gate();
            let first = send_in_task(&app, &key("a"));
            handler.started(2).await;

            // When another request is shed, also repeatedly, then it is answered as the service outside answers errors.
            for _ in 0..3 {
                let shed = send(&app, &key("b")).await;
                assert_eq!(
                    (shed.status.as_u16(), shed.text()),
                    (503, "shed: service overloaded")
                );
            }

            // And replays and duplicates are not shed.
            send(&app, &key("done")).await.assert_replay_of_charge(1);
            send(&app, &key("a").body("other"))
                .await
                .assert_problem(409, "mismatch");
            let duplicate = send_in_task(&app, &key("a"));
            run_ready_tasks().await;
            assert_eq!(waiters(&engine), 1);

            // And the retry of the shed one executes once there is room.
            handler.open_gate();
            first.await.unwrap().assert_charge(2);
            duplicate.await.unwrap().assert_replay_of_charge(2);
            send(&app, &key("b")).await.assert_charge(3);
            send(&app, &key("b")).await.assert_replay_of_charge(3);
        }
    });
}

#[test]
pub(super) fn a_status_made_of_shedding_inside_is_released_where_the_route_says_so() {
    with_paused_clock(async {
        // Given the same with the error made a 503 inside of the layer, which cannot see that nothing began.
        for release in [false, true] {
            let handler = CountingHandler::new();
            let policy = if release {
                Policy::new().release(&[503])
            } else {
                Policy::new()
            };
            let stack = ServiceBuilder::new()
                .layer(super::idempotency().policy(policy))
                .layer(HandleErrorLayer::new(unavailable))
                .load_shed()
                .layer(GlobalConcurrencyLimitLayer::new(1));
            let app = unprotected_app(&handler).layer(stack);
            handler.close_gate();
            let first = send_in_task(&app, &key("a"));
            handler.started(1).await;
            assert_eq!(send(&app, &key("b")).await.status, 503);
            handler.open_gate();
            first.await.unwrap().assert_charge(1);
            let again = send(&app, &key("b")).await;
            assert_eq!(
                (again.status.as_u16(), again.replayed()),
                if release { (201, false) } else { (503, true) }
            );
        }
    });
}

/// A service whose readiness and whose error the test sets.
#[derive(Clone)]
struct Told {
    ready: watch::Receiver<Ready>,
    handler: CountingHandler,
    /// How often it was called without having been ready before.
    unasked: Arc<AtomicUsize>,
    was_ready: bool,
    waiting: Option<Arc<tokio::task::JoinHandle<()>>>,
    error: Option<fn() -> BoxError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Now,
    Later,
    Never,
    Panics,
}

impl Told {
    fn new(handler: &CountingHandler, ready: &watch::Sender<Ready>) -> Self {
        Self {
            ready: ready.subscribe(),
            handler: handler.clone(),
            unasked: Arc::default(),
            was_ready: false,
            waiting: None,
            error: None,
        }
    }
}

impl Service<Request> for Told {
    type Response = Response;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match *self.ready.borrow() {
            Ready::Now => {}
            Ready::Never => return Poll::Ready(Err("the pool is closed".into())),
            Ready::Panics => panic!("a panic of the scenario"),
            Ready::Later => {
                let (mut ready, waker) = (self.ready.clone(), context.waker().clone());
                self.waiting = Some(Arc::new(tokio::spawn(async move {
                    let _ended = ready.wait_for(|ready| *ready != Ready::Later).await;
                    waker.wake();
                })));
                return Poll::Pending;
            }
        }
        self.was_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if !std::mem::take(&mut self.was_ready) {
            self.unasked.fetch_add(1, Ordering::SeqCst);
        }
        let (handler, error) = (self.handler.clone(), self.error);
        Box::pin(async move {
            let answer = handler.call(request).await;
            error.map_or(Ok(answer), |error| Err(error()))
        })
    }
}

type Answer = Result<TestResponse, String>;

/// Sends a request to a service that can fail.
async fn call<S>(service: &S, request: &TestRequest) -> Answer
where
    S: Service<Request, Response = Response, Error = BoxError> + Clone,
{
    match service.clone().oneshot(request.request()).await {
        Ok(response) => Ok(TestResponse::read(response).await),
        Err(error) => Err(error.to_string()),
    }
}

fn behind(builder: Builder, told: &Told) -> idempotent_runtime::layer::IdempotencyService<Told> {
    IdempotencyLayer::new(builder.build().unwrap()).layer(told.clone())
}

#[test]
pub(super) fn an_error_of_the_readiness_releases_the_key_and_is_the_callers() {
    with_paused_clock(async {
        let (handler, ready) = (CountingHandler::new(), watch::Sender::new(Ready::Never));
        let told = Told::new(&handler, &ready);
        let service = behind(Idempotency::builder(), &told);
        for request in [payment(), TestRequest::post(PAY)] {
            for _ in 0..2 {
                let failed = call(&service, &request).await;
                assert_eq!(failed.unwrap_err(), "the pool is closed");
            }
        }
        // Also where it comes late, to a request that waits, and to its duplicate, which then asks for itself.
        ready.send_replace(Ready::Later);
        let waiting: Vec<_> = [payment(), payment(), TestRequest::post(PAY)]
            .map(|request| {
                let service = service.clone();
                tokio::spawn(async move { call(&service, &request).await })
            })
            .into();
        run_ready_tasks().await;
        ready.send_replace(Ready::Never);
        for answer in waiting {
            assert_eq!(answer.await.unwrap().unwrap_err(), "the pool is closed");
        }
        assert_eq!(handler.starts(), 0);
        ready.send_replace(Ready::Now);
        call(&service, &payment()).await.unwrap().assert_charge(1);
        ready.send_replace(Ready::Never);
        call(&service, &payment())
            .await
            .unwrap()
            .assert_replay_of_charge(1);
        assert_eq!(told.unasked.load(Ordering::SeqCst), 0);
    });
}

#[test]
pub(super) fn a_panic_of_the_readiness_releases_the_key() {
    with_paused_clock(async {
        let (handler, ready) = (CountingHandler::new(), watch::Sender::new(Ready::Panics));
        let service = behind(Idempotency::builder(), &Told::new(&handler, &ready));
        let answer = call(&service, &payment()).await.unwrap();
        answer.assert_problem(500, "handler_panicked");
        ready.send_replace(Ready::Now);
        call(&service, &payment()).await.unwrap().assert_charge(1);
    });
}

#[test]
pub(super) fn a_service_that_becomes_ready_later_is_called_then() {
    with_paused_clock(async {
        // Given a service that is not ready, a covered request and one that is not.
        let (handler, ready) = (CountingHandler::new(), watch::Sender::new(Ready::Later));
        let told = Told::new(&handler, &ready);
        let engine = engine();
        let service = IdempotencyLayer::new(engine.clone()).layer(told.clone());
        let sent = [payment(), TestRequest::post(PAY)].map(|request| {
            let service = service.clone();
            tokio::spawn(async move { call(&service, &request).await.unwrap() })
        });
        run_ready_tasks().await;
        assert_eq!(handler.starts(), 0);

        // When the client of the covered one leaves, and the service becomes ready within the lease.
        let [keyed, plain] = sent;
        keyed.abort();
        run_ready_tasks().await;
        assert_eq!(detached(&engine), 1);
        advance(Duration::from_secs(20)).await;
        ready.send_replace(Ready::Now);
        run_ready_tasks().await;

        // Then both are executed, and the retry gets the outcome.
        plain.await.unwrap();
        assert_eq!((handler.starts(), detached(&engine)), (2, 0));
        assert!(call(&service, &payment()).await.unwrap().replayed());
        assert_eq!(told.unasked.load(Ordering::SeqCst), 0);
    });
}

#[test]
pub(super) fn a_service_that_is_not_ready_within_the_lease_starts_nothing() {
    with_paused_clock(async {
        let (handler, ready) = (CountingHandler::new(), watch::Sender::new(Ready::Later));
        let service = behind(Idempotency::builder(), &Told::new(&handler, &ready));
        let late = {
            let service = service.clone();
            tokio::spawn(async move { call(&service, &payment()).await.unwrap() })
        };
        // The answer does not wait for the service, which is never ready.
        advance(Duration::from_secs(31)).await;
        run_ready_tasks().await;
        assert!(late.is_finished(), "it waits for one lease only");
        late.await.unwrap().assert_problem(503, "overloaded");
        assert_eq!(handler.starts(), 0);
        ready.send_replace(Ready::Now);
        call(&service, &payment()).await.unwrap().assert_charge(1);
    });
}

#[test]
pub(super) fn a_shutdown_waits_for_a_request_that_waits_for_its_service() {
    with_paused_clock(async {
        for in_time in [true, false] {
            // Given a request that waits for its service, and a shutdown.
            let (handler, ready) = (CountingHandler::new(), watch::Sender::new(Ready::Later));
            let (engine, store) = (Idempotency::builder(), FaultyStore::new());
            let engine = engine.store(store.clone()).build().unwrap();
            let service = IdempotencyLayer::new(engine.clone()).layer(Told::new(&handler, &ready));
            let sent = tokio::spawn(async move { call(&service, &payment()).await.unwrap() });
            run_ready_tasks().await;
            let ended = tokio::spawn(async move { engine.shutdown(Duration::from_secs(10)).await });
            advance(Duration::from_secs(if in_time { 9 } else { 11 })).await;
            assert_eq!(ended.is_finished(), !in_time);
            // Nothing began, so at the deadline the request is answered, and its key is free before the shutdown returns.
            assert_eq!(sent.is_finished(), !in_time);
            let record = store.get(&store.keys()[0]).await.unwrap();
            assert_eq!(record.is_some(), in_time);

            // When the service becomes ready within the deadline, then it is called; after it nothing starts.
            ready.send_replace(Ready::Now);
            let answer = sent.await.unwrap();
            if in_time {
                answer.assert_charge(1);
            } else {
                answer.assert_problem(503, "overloaded");
            }
            assert_eq!(handler.starts(), usize::from(in_time));
            let report = ended.await.unwrap();
            assert_eq!(
                (report.drained, report.unknown, report.unconfirmed),
                (usize::from(in_time), 0, 0)
            );
            assert_eq!(store.calls(Operation::Abandon), 0);
        }
    });
}

#[test]
pub(super) fn a_shutdown_marks_what_began_beside_what_still_waits() {
    with_paused_clock(async {
        // Given an execution, and requests that wait for its permit, one of them without its client.
        let (store, handler) = (MemoryStore::new(), CountingHandler::new());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = limited(&engine, &handler, 1);
        handler.close_gate();
        let first = send_in_task(&app, &key("a"));
        handler.started(1).await;
        let waiting = send_in_task(&app, &key("b"));
        let left = send_in_task(&app, &key("c"));
        run_ready_tasks().await;
        left.abort();
        run_ready_tasks().await;

        // When the deadline passes, then only the execution is unknown.
        let ending = engine.clone();
        let ended = tokio::spawn(async move { ending.shutdown(Duration::from_secs(10)).await });
        advance(Duration::from_secs(11)).await;
        let report = ended.await.unwrap();
        assert_eq!(
            (report.drained, report.unknown, report.unconfirmed),
            (0, 1, 0)
        );
        waiting.await.unwrap().assert_problem(503, "overloaded");
        let next = Idempotency::builder().store(store).build().unwrap();
        let next = limited(&next, &handler, 1);
        send(&next, &key("a"))
            .await
            .assert_problem(409, "outcome_unknown");
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        send(&next, &key("b")).await.assert_charge(2);
        send(&next, &key("c")).await.assert_charge(3);
    });
}

#[test]
pub(super) fn a_dead_store_does_not_keep_a_shutdown_waiting_for_what_still_waits() {
    with_paused_clock(async {
        for outage in [Fault::Unreachable, Fault::Hang] {
            let (handler, ready) = (CountingHandler::new(), watch::Sender::new(Ready::Later));
            let (builder, store) = (Idempotency::builder(), FaultyStore::new());
            let engine = builder.store(store.clone()).build().unwrap();
            let service = IdempotencyLayer::new(engine.clone()).layer(Told::new(&handler, &ready));
            let sent = tokio::spawn(async move { call(&service, &payment()).await.unwrap() });
            run_ready_tasks().await;
            store.fail_always(Operation::Release, outage);
            let ended = tokio::spawn(async move { engine.shutdown(Duration::from_secs(10)).await });
            run_ready_tasks().await;
            advance(Duration::from_millis(12_010)).await;
            assert!(ended.is_finished());
            let report = ended.await.unwrap();
            assert_eq!((report.unknown, report.unconfirmed), (0, 1));
            advance(Duration::from_secs(10)).await;
            sent.await.unwrap().assert_problem(503, "overloaded");
        }
    });
}

#[test]
pub(super) fn after_a_take_over_a_service_that_is_not_ready_abandons_the_key() {
    with_paused_clock(async {
        // Given a crashed execution, and a retry that takes it over while the service behind the layer is closed.
        let handler = CountingHandler::new();
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let (store, builder) = (MemoryStore::new(), || {
            Idempotency::builder().policy(policy.clone())
        });
        handler.close_gate();
        crash(
            Adapter::Layer,
            builder(),
            store.clone(),
            &TestRequest::payment("k"),
            &handler,
        )
        .await;
        handler.open_gate();
        advance(Duration::from_secs(31)).await;
        let ready = watch::Sender::new(Ready::Never);
        let service = behind(builder().store(store), &Told::new(&handler, &ready));
        let request = TestRequest::payment("k");
        let app = Router::new().route_service(
            PAY,
            HandleErrorLayer::new(unavailable).layer(service.clone()),
        );
        for _ in 0..2 {
            assert_eq!(
                send(&app, &request).await.text(),
                "shed: the pool is closed"
            );
        }

        // When it is open again, then the attempt is higher than all before it.
        ready.send_replace(Ready::Now);
        let answer = send(&app, &request).await;
        assert_eq!((answer.status.as_u16(), handler.starts()), (201, 2));
        assert_eq!(handler.attempts().len(), 2);
        assert!(handler.attempts()[1] >= 3, "{:?}", handler.attempts());
    });
}

/// A service that has its effect and then fails with this error.
fn failing(error: fn() -> BoxError) -> (CountingHandler, Told) {
    let handler = CountingHandler::new();
    let mut told = Told::new(&handler, &watch::Sender::new(Ready::Now));
    told.error = Some(error);
    (handler, told)
}

#[derive(Debug)]
struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

/// An error with another one as its source.
#[derive(Debug)]
struct Because(BoxError);

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "because it was {}", self.0)
    }
}

impl std::error::Error for Because {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[test]
pub(super) fn only_errors_that_come_before_any_work_release_the_key() {
    with_paused_clock(async {
        type Case = (fn() -> BoxError, bool, bool);
        let cases: [Case; 4] = [
            // Whether it releases by itself, and with `not_started`.
            (|| Overloaded::new().into(), true, true),
            (|| Box::new(Refused), false, true),
            (|| Box::new(Because(Overloaded::new().into())), false, false),
            (|| "the connection broke".into(), false, false),
        ];
        for (error, by_itself, named) in cases {
            let (handler, told) = failing(error);
            let plain = behind(Idempotency::builder(), &told);
            let builder = Idempotency::builder().not_started(|error| error.is::<Refused>());
            let told_so = behind(builder, &told);
            for (service, releases) in [(plain, by_itself), (told_so, named)] {
                let before = handler.starts();
                let failed = call(&service, &payment()).await.unwrap_err();
                assert_eq!(failed, error().to_string());
                let again = call(&service, &payment()).await;
                if releases {
                    assert_eq!(again.unwrap_err(), failed);
                } else {
                    again.unwrap().assert_problem(409, "outcome_unknown");
                }
                assert_eq!(
                    handler.starts(),
                    before + 1 + usize::from(releases),
                    "{failed}"
                );
            }
        }
    });
}

#[test]
pub(super) fn a_service_that_passes_on_after_its_work_that_another_was_overloaded_releases_nothing()
{
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let charging = handler.clone();
        let inner = tower::service_fn(move |request: Request| {
            let handler = charging.clone();
            async move {
                drop(handler.call(request).await);
                tokio::task::yield_now().await;
                Err::<Response, BoxError>(Overloaded::new().into())
            }
        });
        let service = IdempotencyLayer::new(engine()).layer(inner);
        let request = || payment().request();
        let failed = service.clone().oneshot(request()).await.unwrap_err();
        assert!(failed.is::<Overloaded>());
        let again = service.oneshot(request()).await.unwrap();
        assert_eq!(again.status(), StatusCode::CONFLICT);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
pub(super) fn a_function_that_panics_over_an_error_leaves_the_key_claimed() {
    with_paused_clock(async {
        let (handler, told) = failing(|| "the connection broke".into());
        let builder = Idempotency::builder().not_started(|_| panic!("a panic of the scenario"));
        let service = behind(builder, &told);
        for _ in 0..2 {
            let answer = call(&service, &payment()).await.unwrap();
            answer.assert_problem(500, "handler_panicked");
        }
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
pub(super) fn an_error_whose_release_is_fenced_is_still_the_callers() {
    with_paused_clock(async {
        // Given a store that does not acknowledge the release.
        let (handler, told) = failing(|| Overloaded::new().into());
        let store = FaultyStore::new();
        let service = behind(Idempotency::builder().store(store.clone()), &told);
        store.fail_always(Operation::Release, Fault::ReplyLost);
        let failed = call(&service, &payment()).await.unwrap_err();
        assert_eq!(
            (failed.as_str(), handler.starts()),
            ("service overloaded", 1)
        );
        store.heal();
        advance(Duration::from_secs(60)).await;
        assert!(call(&service, &payment()).await.is_err());
        assert_eq!(handler.starts(), 2);
    });
}

#[test]
pub(super) fn without_a_store_the_service_is_asked_for_its_readiness_too() {
    with_paused_clock(async {
        let (handler, ready) = (CountingHandler::new(), watch::Sender::new(Ready::Never));
        let told = Told::new(&handler, &ready);
        let store = FaultyStore::new();
        store.fail_always(Operation::Acquire, Fault::Unreachable);
        let builder = Idempotency::builder()
            .store(store)
            .on_store_error(OnStoreError::Execute);
        let service = behind(builder, &told);
        assert_eq!(
            call(&service, &payment()).await.unwrap_err(),
            "the pool is closed"
        );
        ready.send_replace(Ready::Now);
        call(&service, &payment()).await.unwrap().assert_charge(1);
        assert_eq!(told.unasked.load(Ordering::SeqCst), 0);
    });
}

#[test]
pub(super) fn load_shedding_outside_refuses_before_any_key_is_touched() {
    with_paused_clock(async {
        // Given a limit outside with one permit, and load shedding around it.
        let handler = CountingHandler::new();
        let stack = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(unavailable))
            .load_shed()
            .layer(GlobalConcurrencyLimitLayer::new(1))
            .layer(super::idempotency());
        let app = unprotected_app(&handler).layer(stack);
        handler.close_gate();
        let first = send_in_task(&app, &key("a"));
        handler.started(1).await;
        // Then replays and duplicates are shed too: each needs a permit.
        for name in ["a", "b"] {
            assert_eq!(send(&app, &key(name)).await.status, 503);
        }
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        send(&app, &key("a")).await.assert_replay_of_charge(1);
        send(&app, &key("b")).await.assert_charge(2);
    });
}

#[test]
pub(super) fn a_layer_inside_that_waits_does_not_make_the_layer_busy() {
    with_paused_clock(async {
        // Given a middleware function inside that holds requests until the test opens it.
        let (handler, open) = (CountingHandler::new(), watch::Sender::new(false));
        let gate = open.clone();
        let stack = ServiceBuilder::new()
            .layer(super::idempotency())
            .layer(from_fn(move |request: Request, next: Next| {
                let mut open = gate.subscribe();
                async move {
                    drop(open.wait_for(|open| *open).await);
                    next.run(request).await
                }
            }));
        let app = unprotected_app(&handler).layer(stack);
        open.send_replace(true);
        send(&app, &key("done")).await.assert_charge(1);
        open.send_replace(false);
        let held = send_in_task(&app, &key("a"));
        run_ready_tasks().await;
        send(&app, &key("done")).await.assert_replay_of_charge(1);
        open.send_replace(true);
        held.await.unwrap().assert_charge(2);
    });
}
