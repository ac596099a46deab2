//! A service in front of a store, as a process of its own would have it, and how long duplicates wait in a second one.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use idempotent_runtime::{Builder, Idempotency, IdempotencyLayer, store::Store};
use tokio::sync::watch;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{counting::Counting, toolbox::eventually};

/// How many executions there were in all services that share it.
#[derive(Clone, Default)]
pub(crate) struct Executions(watch::Sender<u32>);

impl Executions {
    pub(crate) fn count(&self) -> u32 {
        *self.0.borrow()
    }

    /// Waits until so many were started.
    pub(crate) async fn started(&self, count: u32) {
        let found = || format!("{} executions instead of {count}", self.count());
        eventually(async || self.count() >= count, found).await;
    }

    /// Counts one more, and gives its number.
    fn start(&self) -> u32 {
        let mut number = 0;
        self.0.send_modify(|count| {
            *count += 1;
            number = *count;
        });
        number
    }
}

/// What executions wait for before they end.
#[derive(Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn opened() -> Self {
        Self(watch::Sender::new(true))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        let mut opened = self.0.subscribe();
        opened
            .wait_for(|open| *open)
            .await
            .expect("its sender is here");
    }
}

/// What a client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) replayed: bool,
}

/// The answer that belongs to this execution.
pub(crate) fn paid(execution: u32, replayed: bool) -> Answer {
    Answer {
        status: 200,
        body: format!("paid {execution}"),
        replayed,
    }
}

/// One process of the service. Clones share its engine.
#[derive(Clone)]
pub(crate) struct Service {
    engine: Idempotency,
    store: Counting,
    executions: Executions,
}

impl Service {
    /// One with default settings.
    pub(crate) fn new(store: impl Store, executions: &Executions) -> Self {
        Self::with(Idempotency::builder(), store, executions)
    }

    pub(crate) fn with(settings: Builder, store: impl Store, executions: &Executions) -> Self {
        let store = Counting::new(store);
        let engine = settings.store(store.clone()).build();
        Self {
            engine: engine.expect("an engine"),
            store,
            executions: executions.clone(),
        }
    }

    pub(crate) fn engine(&self) -> &Idempotency {
        &self.engine
    }

    pub(crate) fn executions(&self) -> &Executions {
        &self.executions
    }

    /// Sends a request with this key.
    pub(crate) async fn pay(&self, key: &str) -> Answer {
        self.pay_behind(key, &Gate::opened()).await
    }

    /// Sends a request with this key, whose execution, if there is one, ends when the gate is open.
    pub(crate) async fn pay_behind(&self, key: &str, gate: &Gate) -> Answer {
        let (executions, gate) = (self.executions.clone(), gate.clone());
        let handler = service_fn(move |_| {
            let (executions, gate) = (executions.clone(), gate.clone());
            async move {
                let number = executions.start();
                gate.passed().await;
                let body = Bytes::from(format!("paid {number}"));
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            }
        });
        let request = Request::post("/pay").header("idempotency-key", key);
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        let layer = IdempotencyLayer::new(self.engine.clone());
        let response = layer.layer(handler).oneshot(request).await;
        let response = response.unwrap_or_else(|never| match never {});
        let status = response.status().as_u16();
        let replayed = response.headers().contains_key("idempotent-replay");
        let body = response.into_body().collect().await.expect("a body");
        Answer {
            status,
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            replayed,
        }
    }

    /// Sends a duplicate of a request that another process executes, and has that execution end when polling has slowed
    /// down as far as it does. Gives the answer, and when it came.
    pub(crate) async fn wait(&self, key: &str, end: impl FnOnce()) -> (Answer, Instant) {
        // The first claim, and the polls after pauses of 10, 20, 40, 80, 160 and 320 ms. The next pause is the longest,
        // 500 ms less some jitter.
        let slow = self.store.operations() + 7;
        let waiting = async { (self.pay(key).await, Instant::now()) };
        let ending = async {
            let polled = || format!("{} of {slow} operations", self.store.operations());
            eventually(async || self.store.operations() >= slow, polled).await;
            end();
        };
        tokio::join!(waiting, ending).0
    }
}

/// A key that was not used before.
pub(crate) fn new_key() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("key-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// How long after the answer of the service that executed a duplicate that waits in the other has its own, for each of
/// so many keys. Both services share the count of executions.
pub(crate) async fn latencies(first: &Service, second: &Service, keys: usize) -> Vec<Duration> {
    let mut latencies = Vec::new();
    for _ in 0..keys {
        let (key, gate) = (new_key(), Gate::closed());
        let number = first.executions.count() + 1;
        let executing = async {
            let answer = first.pay_behind(&key, &gate).await;
            (answer, Instant::now())
        };
        let waiting = async {
            first.executions.started(number).await;
            second.wait(&key, || gate.open()).await
        };
        let ((executed, completed), (replayed, answered)) = tokio::join!(executing, waiting);
        assert_eq!(executed, paid(number, false));
        assert_eq!(replayed, paid(number, true));
        latencies.push(answered.saturating_duration_since(completed));
    }
    println!("from the answer of one process to that of the other: {latencies:?}");
    latencies
}
