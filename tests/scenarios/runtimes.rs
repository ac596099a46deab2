//! The runtime of background tasks, where workers end before the process (DESIGN.md, section 4).

use std::{
    collections::HashSet,
    future::{Future, pending},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use axum::{Router, response::IntoResponse};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use idempotent_runtime::{
    Builder, Idempotency, MemoryStore, Policy, StoreKey,
    store::{Acquisition, Claim, Held, Outcome, Record, Store, StoreError, Token, Wake, Write},
};
use tokio::{
    runtime::{self, Handle},
    sync::oneshot,
    task::yield_now,
};
use tower::ServiceExt;

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Operation, TestRequest, frames, in_real_time,
    send, send_in_task, wait_until,
};

/// Runs this on a worker: a thread with a runtime of its own, which ends with it.
async fn on_a_worker<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (send, receive) = oneshot::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap();
        let result = runtime.block_on(work);
        drop(runtime);
        drop(send.send(result));
    });
    receive.await.expect("the worker ends")
}

/// Runs a case for each adapter with an engine whose tasks run on the runtime of the case.
fn with_a_chosen_runtime(case: impl AsyncFn(Adapter, Builder)) {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            case(adapter, Idempotency::builder().runtime(Handle::current())).await;
        }
    });
}

fn app(adapter: Adapter, builder: Builder, store: impl Store, handler: &CountingHandler) -> Router {
    adapter.app(&builder.store(store).build().unwrap(), handler)
}

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

#[test]
fn an_execution_goes_on_when_its_worker_ends() {
    with_a_chosen_runtime(async |adapter, builder| {
        let handler = CountingHandler::new();
        let app = app(adapter, builder, MemoryStore::new(), &handler);
        handler.close_gate();
        let (app_there, handler_there) = (app.clone(), handler.clone());
        on_a_worker(async move {
            let _first = send_in_task(&app_there, &payment());
            handler_there.started(1).await;
        })
        .await;
        handler.open_gate();
        send(&app, &payment()).await.assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_stream_is_recorded_to_its_end_when_its_worker_ends() {
    with_a_chosen_runtime(async |adapter, builder| {
        let (sender, body) = frames();
        let body = Mutex::new(Some(body));
        let handler = CountingHandler::responding(move |_| {
            body.lock().unwrap().take().unwrap().into_response()
        });
        let app = app(adapter, builder, MemoryStore::new(), &handler);
        let piece = |text: &'static str| Ok(Frame::data(Bytes::from(text)));
        sender.send(piece("one ")).unwrap();
        sender.send(piece("two ")).unwrap();
        let app_there = app.clone();
        on_a_worker(async move {
            let response = app_there.oneshot(payment().request()).await.unwrap();
            let first = response.into_body().frame().await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "one ");
        })
        .await;
        sender.send(piece("three")).unwrap();
        drop(sender);
        let replay = send(&app, &payment()).await;
        assert_eq!(replay.text(), "one two three");
        assert!(replay.replayed());
    });
}

#[test]
fn an_outcome_is_stored_late_when_its_worker_ends() {
    with_a_chosen_runtime(async |adapter, builder| {
        let (store, handler) = (FaultyStore::new(), CountingHandler::new());
        store.fail_always(Operation::Complete, Fault::Unreachable);
        let builder = builder.store_timeout(Duration::from_millis(50));
        let app = app(adapter, builder, store.clone(), &handler);
        let app_there = app.clone();
        let first = on_a_worker(async move { send(&app_there, &payment()).await });
        first.await.assert_problem(409, "outcome_unknown");
        let before = store.calls(Operation::Complete);
        store.heal();
        wait_until(|| store.calls(Operation::Complete) > before).await;
        wait_for_the_replay(&app).await;
    });
}

async fn wait_for_the_replay(app: &Router) {
    let since = Instant::now();
    loop {
        let answer = send(app, &payment()).await;
        if answer.replayed() {
            return answer.assert_replay_of_charge(1);
        }
        answer.assert_problem(409, "outcome_unknown");
        assert!(since.elapsed() < Duration::from_secs(30), "never stored");
        yield_now().await;
    }
}

#[test]
fn a_claim_in_doubt_is_withdrawn_when_its_worker_ends() {
    with_a_chosen_runtime(async |adapter, builder| {
        let (store, handler) = (FaultyStore::new(), CountingHandler::new());
        store.fail_always(Operation::Acquire, Fault::ReplyLost);
        store.fail_always(Operation::Release, Fault::Unreachable);
        let builder = builder.store_timeout(Duration::from_millis(50));
        let app = app(adapter, builder, store.clone(), &handler);
        let app_there = app.clone();
        let first = on_a_worker(async move { send(&app_there, &payment()).await });
        first.await.assert_problem(503, "store_unavailable");
        store.heal();
        // Well before the lease of the claim would lapse.
        send(&app, &payment()).await.assert_charge(1);
    });
}

#[test]
fn a_handler_that_blocks_its_worker_keeps_its_lease() {
    with_a_chosen_runtime(async |adapter, builder| {
        let store = FaultyStore::new();
        let renewed = store.clone();
        let handler = CountingHandler::running(move |_, _| {
            // It blocks the only thread of its runtime until its lease was renewed.
            let since = Instant::now();
            while renewed.calls(Operation::Renew) == 0 {
                assert!(since.elapsed() < Duration::from_secs(30), "never renewed");
                thread::sleep(Duration::from_millis(1));
            }
            Box::pin(async { "charged".into_response() })
        });
        let builder = builder.policy(Policy::new().lease(Duration::from_secs(1)));
        let app = app(adapter, builder, store, &handler);
        let answer = on_a_worker(async move { send(&app, &payment()).await });
        assert_eq!(answer.await.text(), "charged");
    });
}

#[test]
fn the_store_works_within_the_chosen_runtime() {
    for answers in [Answers::AtOnce, Answers::Later] {
        with_a_chosen_runtime(async |adapter, builder| {
            let (store, handler) = (Located::new(answers), CountingHandler::new());
            let app = app(adapter, builder, store.clone(), &handler);
            let answers = on_a_worker(async move {
                let first = send(&app, &payment()).await;
                (first, send(&app, &payment()).await)
            });
            let (first, replay) = answers.await;
            first.assert_charge(1);
            replay.assert_replay_of_charge(1);
            store.assert_works_here();
        });
    }
}

#[test]
fn an_operation_that_takes_too_long_is_dropped_within_the_chosen_runtime() {
    with_a_chosen_runtime(async |adapter, builder| {
        let (store, handler) = (Located::new(Answers::Never), CountingHandler::new());
        let builder = builder.store_timeout(Duration::from_millis(50));
        let app = app(adapter, builder, store.clone(), &handler);
        let answer = on_a_worker(async move { send(&app, &payment()).await });
        answer.await.assert_problem(503, "store_unavailable");
        store.assert_works_here();
    });
}

/// A store that notes on which runtimes it is asked, goes on, and is dropped.
#[derive(Clone)]
struct Located {
    store: MemoryStore,
    answers: Answers,
    runtimes: Arc<Mutex<HashSet<runtime::Id>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    AtOnce,
    Later,
    Never,
}

/// Notes where it is dropped.
struct Note<'a>(&'a Located);

impl Drop for Note<'_> {
    fn drop(&mut self) {
        self.0.note();
    }
}

impl Located {
    fn new(answers: Answers) -> Self {
        Self {
            store: MemoryStore::new(),
            answers,
            runtimes: Arc::default(),
        }
    }

    fn note(&self) {
        let id = Handle::current().id();
        self.runtimes.lock().unwrap().insert(id);
    }

    /// Everything so far was done on the current runtime.
    fn assert_works_here(&self) {
        let here = HashSet::from([Handle::current().id()]);
        assert_eq!(*self.runtimes.lock().unwrap(), here);
    }

    fn answers_at_once<T>(&self, answer: impl FnOnce() -> Option<T>) -> Option<T> {
        self.note();
        (self.answers == Answers::AtOnce).then(answer)?
    }

    fn noting<T>(&self, operation: impl Future<Output = T>) -> impl Future<Output = T> {
        self.note();
        async {
            let _dropped = Note(self);
            yield_now().await;
            self.note();
            if self.answers == Answers::Never {
                pending::<()>().await;
            }
            operation.await
        }
    }
}

impl Store for Located {
    fn name(&self) -> &'static str {
        "located"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.noting(self.store.acquire(claim)).await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.noting(self.store.renew(held)).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.noting(self.store.complete(held, outcome)).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.noting(self.store.release(key, token)).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.noting(self.store.abandon(key, token)).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.noting(self.store.get(key)).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.noting(self.store.purge_expired(limit)).await
    }

    fn try_acquire(&self, claim: &Claim) -> Option<Result<Acquisition, StoreError>> {
        self.answers_at_once(|| self.store.try_acquire(claim))
    }

    fn try_complete(&self, held: &Held, outcome: &Outcome) -> Option<Result<Write, StoreError>> {
        self.answers_at_once(|| self.store.try_complete(held, outcome))
    }

    fn attach(&self, wake: Wake) {
        self.note();
        self.store.attach(wake);
    }
}
