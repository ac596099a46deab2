//! The time from the end of an execution until all of its ten thousand waiters are answered.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use axum::{Extension, Router, routing::post};
use idempotent_bench::{app, measuring};
use idempotent_runtime::{Idempotency, idempotent};
use tokio::{sync::Semaphore, task::JoinSet};

const MOST: Duration = Duration::from_secs(1);

/// Holds the handler until all duplicates wait, and counts its executions.
#[derive(Clone)]
struct Gate(Arc<Inner>);

struct Inner {
    open: Semaphore,
    executions: AtomicUsize,
}

#[idempotent(wait = true)]
async fn gated(Extension(Gate(gate)): Extension<Gate>) -> String {
    let number = gate.executions.fetch_add(1, Ordering::SeqCst);
    let _permit = gate.open.acquire().await;
    format!("execution {number}")
}

#[tokio::main]
async fn main() {
    let waiters = if measuring() { 10_000 } else { 100 };
    let gate = Gate(Arc::new(Inner {
        open: Semaphore::new(0),
        executions: AtomicUsize::new(0),
    }));
    let engine = Idempotency::builder()
        .max_waiters(waiters)
        .max_waiters_per_key(waiters)
        .build()
        .expect("the settings are valid");
    let router = Router::new()
        .route("/gated", post(gated))
        .layer(Extension(gate.clone()))
        .layer(Extension(engine));

    let waiting = Arc::new(AtomicUsize::new(0));
    let mut requests = JoinSet::new();
    for _ in 0..=waiters {
        let (router, waiting) = (router.clone(), Arc::clone(&waiting));
        requests.spawn(async move {
            let request = app::request("/gated", Some("one-key"), &app::body(32));
            counted(app::call(&router, request), &waiting).await
        });
    }
    while waiting.load(Ordering::SeqCst) <= waiters {
        tokio::task::yield_now().await;
    }

    let ended = Instant::now();
    gate.0.open.add_permits(1);
    let mut answered = 0;
    while let Some(answer) = requests.join_next().await {
        let (status, body) = answer.expect("no request panics");
        assert!(status.is_success(), "{status}");
        assert_eq!(body, "execution 0");
        answered += 1;
    }
    let took = ended.elapsed();
    let executions = gate.0.executions.load(Ordering::SeqCst);
    println!(
        "{waiters} waiters, {executions} execution: all {answered} answered {took:.1?} after its end"
    );
    assert_eq!((answered, executions), (waiters + 1, 1));
    assert!(took < MOST, "longer than {MOST:?}");
}

/// Counts the future once it has been pending.
async fn counted<F: Future>(future: F, pending: &AtomicUsize) -> F::Output {
    let mut future = pin!(future);
    let mut counted = false;
    std::future::poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        if polled.is_pending() && !counted {
            counted = true;
            pending.fetch_add(1, Ordering::SeqCst);
        }
        match polled {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
