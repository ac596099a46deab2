//! Steps of a handler, whose outcomes the next attempt gets (DESIGN.md, section 4).

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use idempotent_runtime::{
    Builder, Execution, Idempotency, MemoryStore, OnCrash, Policy, Step, StepError, StepFaultKind,
};
use tokio::sync::Semaphore;

use crate::support::{
    Adapter, BoxFuture, CountingHandler, FaultyStore, Process, TestRequest, TestResponse, advance,
    send,
};

mod answers;
mod changes;
mod crashes;
mod limits;
mod store_faults;

const LEASE: Duration = Duration::from_secs(30);

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn retrying() -> Builder {
    Idempotency::builder().policy(Policy::new().on_crash(OnCrash::Retry))
}

/// A service that steps call. It records each call, and can be held. Clones share it.
#[derive(Clone, Default)]
struct Provider(Arc<Inner>);

#[derive(Default)]
struct Inner {
    calls: Mutex<Vec<(String, String)>>,
    held: Mutex<Option<Arc<Semaphore>>>,
}

impl Provider {
    /// Records the call, and answers with its number once it is let through.
    async fn call(&self, step: &Step) -> usize {
        let number = {
            let mut calls = self.0.calls.lock().unwrap();
            calls.push((step.name().to_owned(), step.downstream_key()));
            calls.len()
        };
        let held = self.0.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.acquire().await.unwrap().forget();
        }
        number
    }

    /// From now on calls are answered when this gets permits.
    fn hold(&self) -> Arc<Semaphore> {
        let held = Arc::new(Semaphore::new(0));
        *self.0.held.lock().unwrap() = Some(Arc::clone(&held));
        held
    }

    fn let_go(&self) {
        *self.0.held.lock().unwrap() = None;
    }

    /// The steps that called, in their order.
    fn steps(&self) -> Vec<String> {
        let calls = self.0.calls.lock().unwrap();
        calls.iter().map(|(step, _)| step.clone()).collect()
    }

    /// The keys under which this step called.
    fn keys(&self, step: &str) -> Vec<String> {
        let calls = self.0.calls.lock().unwrap();
        let of_step = calls.iter().filter(|(name, _)| name == step);
        of_step.map(|(_, key)| key.clone()).collect()
    }

    /// A step that calls this service and is always known.
    async fn step(&self, execution: &Execution, name: &str) -> Result<usize, StepError<String>> {
        let provider = self.clone();
        execution
            .step(
                name,
                |step: Step| async move { Ok(provider.call(&step).await) },
            )
            .await
    }
}

/// A handler of steps: the n-th execution runs this.
fn handler<F>(run: impl Fn(usize, Execution) -> F + Send + Sync + 'static) -> CountingHandler
where
    F: Future<Output = Response> + Send + 'static,
{
    CountingHandler::running(move |n, request| -> BoxFuture<Response> {
        let execution = Execution::from_extensions(request.extensions()).cloned();
        Box::pin(run(n, execution.expect("the request has a key")))
    })
}

/// A handler that runs these steps and answers with their outcomes.
fn steps_of(provider: &Provider, names: &'static [&'static str]) -> CountingHandler {
    let provider = provider.clone();
    handler(move |_, execution| {
        let provider = provider.clone();
        async move { run_steps(&provider, &execution, names).await }
    })
}

async fn run_steps(provider: &Provider, execution: &Execution, names: &[&str]) -> Response {
    let mut outcomes = Vec::new();
    for name in names {
        match provider.step(execution, name).await {
            Ok(outcome) => outcomes.push(format!("{name} {outcome}")),
            Err(error) => return error.into_response(),
        }
    }
    (StatusCode::CREATED, outcomes.join(", ")).into_response()
}

/// A record whose process crashed after these steps, and while another one was running.
async fn crashed_after(
    adapter: Adapter,
    store: &FaultyStore,
    provider: &Provider,
    names: &'static [&'static str],
) {
    let crashing = steps_of(provider, names);
    let process = Process::start(retrying(), store.clone());
    let app = adapter.app(&process.engine, &crashing);
    let calls = provider.steps().len() + names.len();
    let held = provider.hold();
    held.add_permits(names.len() - 1);
    process
        .crash_when(&app, &payment(), || provider.steps().len() == calls)
        .await;
    provider.let_go();
    advance(LEASE + Duration::from_secs(1)).await;
}

/// Sends the payment to a new process on this store.
async fn retry(adapter: Adapter, store: &FaultyStore, handler: &CountingHandler) -> TestResponse {
    let engine = retrying().store(store.clone()).build().unwrap();
    send(&adapter.app(&engine, handler), &payment()).await
}

fn fault<T>(result: Result<T, StepError<String>>) -> (StepFaultKind, String) {
    match result {
        Err(StepError::Fault(fault)) => (fault.kind(), fault.to_string()),
        Err(StepError::Failed(error)) => panic!("the step failed: {error}"),
        Ok(_) => panic!("the step has an outcome"),
    }
}

/// What the handler of this execution sees, in one engine on a new store.
async fn in_an_execution<T, F>(run: impl Fn(Execution) -> F + Send + Sync + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (found, run) = (Arc::new(Mutex::new(None)), Arc::new(run));
    let there = Arc::clone(&found);
    let handler = handler(move |_, execution| {
        let (run, found) = (Arc::clone(&run), Arc::clone(&there));
        async move {
            let seen = run(execution).await;
            *found.lock().unwrap() = Some(seen);
            StatusCode::OK.into_response()
        }
    });
    let engine = retrying().store(MemoryStore::new()).build().unwrap();
    send(&Adapter::Attribute.app(&engine, &handler), &payment()).await;
    let found = found.lock().unwrap().take();
    found.expect("the handler ran")
}
