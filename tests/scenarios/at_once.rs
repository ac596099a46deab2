//! Requests for which nothing waits: on a store that answers at once, all that holds of others holds of them too
//! (DESIGN.md, sections 3 and 4; invariants I2, I3, I9).

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{body::Body, response::Response};
use http::Request;
use idempotent_runtime::{Idempotency, IdempotencyLayer, Policy};
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, NoopRecorder, Recorder, SharedString, Unit,
};
use tower::{Layer, Service, service_fn};

use crate::support::{
    BoxFuture, CountingHandler, Fault, FaultyStore, Operation, TestRequest, TestResponse, advance,
    detached, run_ready_tasks, send, send_in_task, waiters, with_each_adapter, with_paused_clock,
};

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn engine(store: &FaultyStore) -> Idempotency {
    Idempotency::builder()
        .store(store.clone())
        .policy(Policy::new().wait(false).lease(LEASE))
        .build()
        .unwrap()
}

/// The handler as a service that the layer wraps. Its future does nothing before it is polled.
fn wrapped(
    engine: &Idempotency,
    handler: &CountingHandler,
) -> impl Service<Request<Body>, Response = Response, Error = Infallible> + use<> {
    let handler = handler.clone();
    IdempotencyLayer::new(engine.clone()).layer(service_fn(move |request: Request<Body>| {
        let handler = handler.clone();
        async move { Ok(handler.call(request).await) }
    }))
}

async fn call<S>(service: &mut S) -> TestResponse
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    let response = service.call(payment().request()).await.unwrap();
    TestResponse::read(response).await
}

#[test]
fn an_acquire_that_fails_at_once_is_repeated_and_executes_once() {
    with_each_adapter(async |adapter| {
        for fault in [Fault::Unreachable, Fault::ReplyLost] {
            let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
            let app = adapter.app(&engine(&store), &handler);
            store.fail_next(Operation::Acquire, fault);
            send(&app, &payment()).await.assert_charge(1);
            send(&app, &payment()).await.assert_replay_of_charge(1);
            assert_eq!(handler.attempts(), [1]);
        }
    });
}

#[test]
fn a_claim_whose_every_answer_is_lost_at_once_is_withdrawn() {
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
        let app = adapter.app(&engine(&store), &handler);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        send(&app, &payment())
            .await
            .assert_problem(503, "store_unavailable");
        run_ready_tasks().await;
        send(&app, &payment()).await.assert_charge(1);
    });
}

#[test]
fn a_claim_that_the_store_grants_only_when_its_lease_is_over_starts_nothing() {
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
        let app = adapter.app(&engine(&store), &handler);
        store.fail_next(Operation::Acquire, Fault::Blocks(LEASE));
        send(&app, &payment())
            .await
            .assert_problem(503, "overloaded");
        assert_eq!(handler.starts(), 0);
        send(&app, &payment()).await.assert_charge(1);
    });
}

/// A service during whose check for readiness the engine around it reaches the end of its shutdown.
#[derive(Clone)]
struct ClosesTheEngine {
    engine: Idempotency,
    handler: CountingHandler,
}

impl Service<Request<Body>> for ClosesTheEngine {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let shutdown = pin!(self.engine.shutdown(Duration::ZERO));
        let polled = shutdown.poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "this request is in flight");
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let handler = self.handler.clone();
        Box::pin(async move { Ok(handler.call(request).await) })
    }
}

#[test]
fn a_shutdown_that_ends_while_a_service_is_asked_whether_it_is_ready_starts_nothing() {
    with_paused_clock(async {
        let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
        let engine = engine(&store);
        let service = ClosesTheEngine {
            engine: engine.clone(),
            handler: handler.clone(),
        };
        let mut service = IdempotencyLayer::new(engine).layer(service);
        call(&mut service).await.assert_problem(503, "overloaded");
        assert_eq!(handler.starts(), 0);

        // And the next process executes at once.
        let mut other = wrapped(&self::engine(&store), &handler);
        call(&mut other).await.assert_charge(1);
    });
}

#[test]
fn a_completion_whose_reply_is_lost_at_once_is_repeated() {
    with_each_adapter(async |adapter| {
        for fault in [Fault::Unreachable, Fault::ReplyLost] {
            let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
            let app = adapter.app(&engine(&store), &handler);
            store.fail_next(Operation::Complete, fault);
            send(&app, &payment()).await.assert_charge(1);
            send(&app, &payment()).await.assert_replay_of_charge(1);
        }
    });
}

#[test]
fn a_duplicate_that_waits_is_answered_when_the_outcome_is_stored_and_not_when_it_asks() {
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        let duplicate = send_in_task(&app, &payment());
        run_ready_tasks().await;
        assert_eq!(waiters(&engine), 1);
        handler.open_gate();
        run_ready_tasks().await;
        assert!(first.is_finished() && duplicate.is_finished());
        first.await.unwrap().assert_charge(1);
        duplicate.await.unwrap().assert_replay_of_charge(1);
        assert_eq!(store.calls(Operation::Get), 0);
    });
}

#[test]
fn an_outcome_that_a_store_never_took_does_not_free_its_key() {
    with_each_adapter(async |adapter| {
        // Given a store that took no outcome for as long as an engine tries.
        let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
        let app = adapter.app(&engine(&store), &handler);
        store.fail_always(Operation::Complete, Fault::Unreachable);
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        advance(Duration::from_secs(16 * 60)).await;
        store.heal();
        advance(Duration::from_secs(60)).await;

        // Then nothing is executed again.
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn nothing_begins_before_the_first_poll() {
    with_paused_clock(async {
        let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
        let engine = engine(&store);
        let mut service = wrapped(&engine, &handler);
        // A caller that changes its mind.
        drop(service.call(payment().request()));
        // One that waits for several leases before it asks for the answer.
        let called = service.call(payment().request());
        advance(Duration::from_secs(100)).await;
        assert_eq!((handler.starts(), store.calls(Operation::Acquire)), (0, 0));
        drop(called.await.unwrap());
        assert_eq!((handler.starts(), store.calls(Operation::Acquire)), (1, 1));
        call(&mut service).await.assert_replay_of_charge(1);
    });
}

#[test]
fn a_request_that_is_dropped_after_its_first_poll_is_executed_to_its_end() {
    with_paused_clock(async {
        let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
        let engine = engine(&store);
        let mut service = wrapped(&engine, &handler);
        handler.close_gate();
        let mut called = Box::pin(service.call(payment().request()));
        assert!(poll_once(&mut called).is_pending());
        drop(called);
        run_ready_tasks().await;
        assert_eq!((handler.starts(), detached(&engine)), (1, 1));
        handler.open_gate();
        run_ready_tasks().await;
        assert_eq!((handler.effects(), detached(&engine)), (1, 0));
        call(&mut service).await.assert_replay_of_charge(1);
    });
}

#[test]
fn a_claim_that_is_repeated_outlives_its_client() {
    with_paused_clock(async {
        let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
        let mut service = wrapped(&engine(&store), &handler);
        store.fail_next(Operation::Acquire, Fault::ReplyLost);
        let mut called = Box::pin(service.call(payment().request()));
        assert!(poll_once(&mut called).is_pending());
        drop(called);
        advance(Duration::from_secs(1)).await;
        assert_eq!(handler.effects(), 1);
        call(&mut service).await.assert_replay_of_charge(1);
    });
}

/// Polls a future as its server does, once.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Metrics whose histogram of executions panics once.
struct PanicsOnce(AtomicBool);

impl Recorder for PanicsOnce {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        NoopRecorder.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        NoopRecorder.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let panics =
            key.name() == "idempotency_execution_seconds" && !self.0.swap(true, Ordering::SeqCst);
        assert!(!panics, "the metrics panic");
        NoopRecorder.register_histogram(key, metadata)
    }
}

#[test]
fn a_panic_between_the_handlers_end_and_its_outcome_leaves_the_outcome_unknown() {
    with_each_adapter(async |adapter| {
        let recorder = PanicsOnce(AtomicBool::new(false));
        let _guard = metrics::set_default_local_recorder(&recorder);
        let (handler, store) = (CountingHandler::new(), FaultyStore::at_once());
        let app = adapter.app(&engine(&store), &handler);
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");

        // Then nothing is executed again, neither before the lease has lapsed nor after that.
        run_ready_tasks().await;
        send(&app, &payment()).await.assert_problem(409, "conflict");
        advance(LEASE + Duration::from_secs(1)).await;
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        assert_eq!(handler.starts(), 1);
    });
}
