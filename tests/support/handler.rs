//! A payment handler that counts how often it started and how often it had its effect.

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

type Respond = dyn Fn(usize, Request) -> BoxFuture<Response> + Send + Sync;

/// A handler whose effect must happen once. Clones share the counts.
///
/// 1. An execution *starts*. Executions are numbered from 1, in the order of their starts.
/// 2. It waits at the gate while that is closed.
/// 3. It has its *effect*, and responds.
#[derive(Clone)]
pub(crate) struct CountingHandler(Arc<Inner>);

struct Inner {
    starts: watch::Sender<usize>,
    effects: AtomicUsize,
    gate: watch::Sender<Gate>,
    executions: Mutex<Vec<Execution>>,
    respond: Box<Respond>,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    let_through: HashSet<usize>,
}

impl CountingHandler {
    /// The n-th execution responds with 201 and `charge n`.
    pub(crate) fn new() -> Self {
        Self::responding(|n| (StatusCode::CREATED, format!("charge {n}")).into_response())
    }

    /// The first execution responds with this status, the others as usual.
    pub(crate) fn with_first_status(status: u16) -> Self {
        Self::responding(move |n| {
            let status = if n == 1 { status } else { 201 };
            let status = StatusCode::from_u16(status).unwrap();
            (status, format!("charge {n}")).into_response()
        })
    }

    /// The n-th execution gives this response.
    pub(crate) fn responding(answer: impl Fn(usize) -> Response + Send + Sync + 'static) -> Self {
        Self::running(move |n, _| {
            let answer = answer(n);
            Box::pin(async move { answer })
        })
    }

    /// The n-th execution runs this after its effect.
    pub(crate) fn running(
        respond: impl Fn(usize, Request) -> BoxFuture<Response> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            starts: watch::Sender::new(0),
            effects: AtomicUsize::new(0),
            gate: watch::Sender::default(),
            executions: Mutex::default(),
            respond: Box::new(respond),
        }))
    }

    /// One execution.
    pub(crate) async fn call(self, request: Request) -> Response {
        let execution = Execution::from_extensions(request.extensions());
        self.0.executions.lock().unwrap().extend(execution.cloned());
        let mut n = 0;
        self.0.starts.send_modify(|starts| {
            *starts += 1;
            n = *starts;
        });
        let mut gate = self.0.gate.subscribe();
        gate.wait_for(|gate| !gate.closed || gate.let_through.contains(&n))
            .await
            .unwrap();
        self.0.effects.fetch_add(1, Ordering::SeqCst);
        (self.0.respond)(n, request).await
    }

    /// Holds executions that start from now on before their effect.
    pub(crate) fn close_gate(&self) {
        self.0.gate.send_modify(|gate| gate.closed = true);
    }

    /// Lets the n-th execution through the closed gate.
    pub(crate) fn let_through(&self, n: usize) {
        self.0.gate.send_modify(|gate| {
            gate.let_through.insert(n);
        });
    }

    /// Opens the gate for all executions.
    pub(crate) fn open_gate(&self) {
        self.0.gate.send_modify(|gate| gate.closed = false);
    }

    /// Waits until the n-th execution has started.
    pub(crate) async fn started(&self, n: usize) {
        let mut starts = self.0.starts.subscribe();
        starts.wait_for(|starts| *starts >= n).await.unwrap();
    }

    /// How many executions have started.
    pub(crate) fn starts(&self) -> usize {
        *self.0.starts.borrow()
    }

    /// How many executions have had their effect.
    pub(crate) fn effects(&self) -> usize {
        self.0.effects.load(Ordering::SeqCst)
    }

    /// The [`Execution`] of the n-th execution with a key.
    pub(crate) fn execution(&self, n: usize) -> Execution {
        self.0.executions.lock().unwrap()[n - 1].clone()
    }

    /// The attempts of all executions with a key, in the order of their starts.
    pub(crate) fn attempts(&self) -> Vec<u32> {
        let executions = self.0.executions.lock().unwrap();
        executions.iter().map(Execution::attempt).collect()
    }
}
