//! A payment handler that counts how often it began and how often it took money.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use idempotent_runtime::Execution;
use tokio::sync::watch;

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type Serve = dyn Fn(usize, Request) -> BoxFuture<Response> + Send + Sync;

/// The state of a handler whose effect must happen once.
///
/// An execution begins (it *started*), stops at the gate if that is closed, has its effect, and then answers as
/// it was told. Executions are numbered from 1.
#[derive(Clone)]
pub(crate) struct CountingHandler(Arc<Inner>);

struct Inner {
    starts: watch::Sender<usize>,
    effects: AtomicUsize,
    gate: watch::Sender<Gate>,
    executions: Mutex<Vec<Execution>>,
    serve: Box<Serve>,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    released: HashSet<usize>,
}

impl CountingHandler {
    /// Answers 201 and `charge n`.
    pub(crate) fn new() -> Self {
        Self::responding(|n| (StatusCode::CREATED, format!("charge {n}")).into_response())
    }

    /// Answers the first execution with this status, and the others as usual.
    pub(crate) fn with_first_status(status: u16) -> Self {
        Self::responding(move |n| {
            let status = if n == 1 { status } else { 201 };
            let status = StatusCode::from_u16(status).unwrap();
            (status, format!("charge {n}")).into_response()
        })
    }

    /// Answers the n-th execution with this.
    pub(crate) fn responding(answer: impl Fn(usize) -> Response + Send + Sync + 'static) -> Self {
        Self::running(move |n, _| {
            let answer = answer(n);
            Box::pin(async move { answer })
        })
    }

    /// Runs this as the n-th execution, after its effect.
    pub(crate) fn running(
        serve: impl Fn(usize, Request) -> BoxFuture<Response> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            starts: watch::Sender::new(0),
            effects: AtomicUsize::new(0),
            gate: watch::Sender::default(),
            executions: Mutex::default(),
            serve: Box::new(serve),
        }))
    }

    /// The handler.
    pub(crate) async fn call(self, request: Request) -> Response {
        let execution = Execution::from_extensions(request.extensions());
        self.0.executions.lock().unwrap().extend(execution.cloned());
        let mut n = 0;
        self.0.starts.send_modify(|starts| {
            *starts += 1;
            n = *starts;
        });
        let mut gate = self.0.gate.subscribe();
        gate.wait_for(|gate| !gate.closed || gate.released.contains(&n))
            .await
            .unwrap();
        self.0.effects.fetch_add(1, Ordering::SeqCst);
        (self.0.serve)(n, request).await
    }

    /// Holds executions before their effect.
    pub(crate) fn close_gate(&self) {
        self.0.gate.send_modify(|gate| gate.closed = true);
    }

    /// Lets the n-th execution through the gate.
    pub(crate) fn let_through(&self, n: usize) {
        self.0.gate.send_modify(|gate| {
            gate.released.insert(n);
        });
    }

    /// Opens the gate for all.
    pub(crate) fn open_gate(&self) {
        self.0.gate.send_modify(|gate| gate.closed = false);
    }

    /// Until the n-th execution began.
    pub(crate) async fn started(&self, n: usize) {
        let mut starts = self.0.starts.subscribe();
        starts.wait_for(|starts| *starts >= n).await.unwrap();
    }

    /// How many executions began.
    pub(crate) fn starts(&self) -> usize {
        *self.0.starts.borrow()
    }

    /// How many had their effect.
    pub(crate) fn effects(&self) -> usize {
        self.0.effects.load(Ordering::SeqCst)
    }

    /// What the n-th execution under a key was told about itself.
    pub(crate) fn execution(&self, n: usize) -> Execution {
        self.0.executions.lock().unwrap()[n - 1].clone()
    }

    /// The attempts of all executions under a key, in their order.
    pub(crate) fn attempts(&self) -> Vec<u32> {
        let executions = self.0.executions.lock().unwrap();
        executions.iter().map(Execution::attempt).collect()
    }
}
