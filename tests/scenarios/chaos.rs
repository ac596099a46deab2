//! Everything at once: a store that fails at random, clients that disconnect at random, processes that crash at
//! random, and a clock that jumps. The invariants hold (DESIGN.md, section 9; invariants I2, I3, I4, I5, I6).

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::Router;
use idempotent_runtime::{Idempotency, OnCrash, Policy};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::task::yield_now;
use tower::ServiceExt;

use crate::support::{
    Adapter, BoxFuture, CountingHandler, FaultyStore, Process, TestRequest, TestResponse, detached,
    poll_once, send, waiters, with_paused_clock,
};

/// How many times each policy is tried, each time with another seed.
const ROUNDS: usize = 80;

/// A handler that yields a few times and sometimes takes a minute or two.
fn handler(seed: u64) -> CountingHandler {
    CountingHandler::running(move |n, _| -> BoxFuture<axum::response::Response> {
        let mut random = StdRng::seed_from_u64(seed ^ n as u64);
        Box::pin(async move {
            for _ in 0..random.random_range(0..4) {
                yield_now().await;
            }
            if random.random_ratio(2, 3) {
                tokio::time::sleep(Duration::from_secs(random.random_range(1..120))).await;
            }
            axum::response::IntoResponse::into_response((
                http::StatusCode::CREATED,
                format!("charge {n}"),
            ))
        })
    })
}

/// A service of three processes on one store.
#[derive(Clone)]
struct Service {
    handler: CountingHandler,
    store: FaultyStore,
    policy: Policy,
    processes: Arc<Mutex<Vec<(Process, Router)>>>,
}

impl Service {
    fn start(seed: u64, policy: Policy) -> Self {
        let service = Self {
            handler: handler(seed),
            store: FaultyStore::new(),
            policy,
            processes: Arc::default(),
        };
        let processes = (0..3).map(|n| service.process(n)).collect();
        *service.processes.lock().unwrap() = processes;
        service
    }

    fn process(&self, n: usize) -> (Process, Router) {
        let builder = Idempotency::builder().policy(self.policy.clone());
        let process = Process::start(builder, self.store.clone());
        let adapter = [Adapter::Attribute, Adapter::Layer][n % 2];
        let app = adapter.app(&process.engine, &self.handler);
        (process, app)
    }

    fn app(&self, n: usize) -> Router {
        self.processes.lock().unwrap()[n].1.clone()
    }

    /// Replaces a process that crashed. Its other handlers may still run for a while, as they do in a process that is cut
    /// off from the store before it is replaced.
    fn restart(&self, n: usize) {
        let process = self.process(n);
        let (crashed, _) = std::mem::replace(&mut self.processes.lock().unwrap()[n], process);
        crashed.cut_off();
    }
}

/// A client that sends its request six times, each time to a random process, whatever the answers are.
async fn client(service: Service, seed: u64, answers: Arc<Mutex<Vec<TestResponse>>>) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..6 {
        let process = random.random_range(0..3);
        let mut request = Box::pin(
            service
                .app(process)
                .oneshot(TestRequest::payment("k").request()),
        );
        let polls = match random.random_range(0..3) {
            0 => usize::MAX,
            _ => random.random_range(0..40),
        };
        let mut answered = None;
        for _ in 0..polls {
            answered = poll_once(request.as_mut()).await;
            if answered.is_some() {
                break;
            }
            if polls == usize::MAX {
                answered = Some(request.as_mut().await);
                break;
            }
            yield_now().await;
        }
        match answered {
            Some(response) => {
                let answer = TestResponse::read(response.unwrap()).await;
                answers.lock().unwrap().push(answer);
            }
            // The client disconnects, or the process crashes: half of the time each.
            None if random.random_ratio(1, 2) => drop(request),
            None => {
                std::mem::forget(request);
                service.restart(process);
            }
        }
        let pause = random.random_range(0..40_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// One round: the handler, the answers that clients got, and the answer to a last request once no fault is injected.
async fn round(seed: u64, policy: Policy) -> (CountingHandler, Vec<TestResponse>, TestResponse) {
    let service = Service::start(seed, policy);
    let store = service.store.clone();
    let fault_injector = tokio::spawn(async move {
        let mut random = StdRng::seed_from_u64(seed);
        loop {
            let percent = *[0, 25, 60, 95].choose(&mut random).unwrap();
            store.fail_randomly(random.random(), percent);
            tokio::time::sleep(Duration::from_secs(random.random_range(5..60))).await;
        }
    });
    let answers = Arc::default();
    let clients: Vec<_> = (0..8)
        .map(|n| tokio::spawn(client(service.clone(), seed + n, Arc::clone(&answers))))
        .collect();
    for client in clients {
        client.await.unwrap();
    }

    // Without faults, everything in flight comes to its end.
    fault_injector.abort();
    let _aborted = fault_injector.await;
    service.store.heal();
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    let last = send(&service.app(0), &TestRequest::payment("k")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (process, _) in service.processes.lock().unwrap().iter() {
        let engine = &process.engine;
        assert_eq!((detached(engine), waiters(engine)), (0, 0), "seed {seed}");
    }
    let answers = answers.lock().unwrap().clone();
    (service.handler, answers, last)
}

/// The bodies of all answers that show an outcome.
fn shown(answers: &[TestResponse]) -> HashSet<String> {
    let outcomes = answers.iter().filter(|answer| answer.status == 201);
    outcomes.map(|answer| answer.text().to_owned()).collect()
}

#[test]
fn under_refuse_nothing_executes_twice_and_a_shown_outcome_never_changes() {
    with_paused_clock(async {
        let first: u64 = rand::random_range(0..u64::MAX / 2);
        for seed in (first..).step_by(100).take(ROUNDS) {
            let (handler, answers, last) = round(seed, Policy::new()).await;
            assert!(
                handler.starts() <= 1,
                "seed {seed}: {} executions",
                handler.starts()
            );
            let shown = shown(&answers);
            assert!(shown.len() <= 1, "seed {seed}: {shown:?}");
            if let Some(outcome) = shown.iter().next() {
                assert_eq!(last.text(), outcome, "seed {seed}");
            }
            let known = [201, 409].contains(&last.status.as_u16());
            assert!(known, "seed {seed}: {last:?}");
        }
    });
}

#[test]
fn under_retry_one_outcome_is_shown_and_attempts_only_rise() {
    with_paused_clock(async {
        let first: u64 = rand::random_range(0..u64::MAX / 2);
        for seed in (first..).step_by(100).take(ROUNDS) {
            let policy = Policy::new().on_crash(OnCrash::Retry);
            let (handler, mut answers, last) = round(seed, policy).await;
            assert_eq!(last.status, 201, "seed {seed}: {last:?}");
            answers.push(last);
            let shown = shown(&answers);
            assert_eq!(shown.len(), 1, "seed {seed}: {shown:?}");
            let attempts = handler.attempts();
            assert!(
                attempts.is_sorted_by(|a, b| a < b),
                "seed {seed}: {attempts:?}"
            );
        }
    });
}
