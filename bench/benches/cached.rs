//! Replays from `Cached` in front of a remote store, compared with replays from the memory store.
//!
//! Both replay the same responses, alternately. The replays must not reach the remote store at all.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes};
use idempotent_bench::{app, compare, measuring};
use idempotent_runtime::{
    Idempotency, MemoryStore, StoreKey,
    store::{
        Acquisition, Claim, Held, Outcome, Record, Store, StoreError, Token, Wake, Write,
        cached::Cached,
    },
};
use tokio::runtime::Runtime;

/// How many records are stored; each is replayed once in a turn.
const RECORDS: u32 = 500;
const TURNS: usize = 101;
const MOST: f64 = 1.5;

fn main() {
    let bench = Bench {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("the runtime starts"),
        body: app::body(32),
    };
    let remote = Remote::default();
    let cached = Idempotency::builder()
        .store(Cached::new(remote.clone(), 64 << 20))
        .build();
    let memory = bench.filled(app::router());
    let cached = bench.filled(app::router_on(cached.expect("the defaults are valid")));
    let executions = remote.calls();
    let turns = if measuring() { TURNS } else { 1 };
    let pair = compare::in_turns(
        turns,
        RECORDS,
        |_| bench.replays(&memory),
        |_| bench.replays(&cached),
    );
    println!(
        "replay by MemoryStore {} ns, by Cached {} ns, ratio {:.2}",
        pair.base.as_nanos(),
        pair.other.as_nanos(),
        pair.ratio
    );
    println!(
        "round trips of first executions {executions}, of replays {}",
        remote.calls() - executions
    );
    assert_eq!(remote.calls(), executions, "a replay reached the store");
    assert!(!measuring() || pair.ratio <= MOST, "more than {MOST}");
}

struct Bench {
    runtime: Runtime,
    body: Bytes,
}

impl Bench {
    /// The router, after its engine has stored all records.
    fn filled(&self, router: Router) -> Router {
        self.send_all(&router);
        router
    }

    fn replays(&self, router: &Router) -> Duration {
        compare::timed(|| self.send_all(router))
    }

    fn send_all(&self, router: &Router) {
        self.runtime.block_on(async {
            for n in 0..RECORDS as usize {
                let request = app::request(app::PAYMENTS, Some(&app::key("key", n)), &self.body);
                assert!(app::call(router, request).await.0.is_success());
            }
        });
    }
}

/// A store that is a millisecond away and counts the calls of its operations.
#[derive(Clone, Default)]
struct Remote {
    store: MemoryStore,
    calls: Arc<AtomicU64>,
}

impl Remote {
    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    async fn trip<T>(&self, operation: impl Future<Output = T>) -> T {
        self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
        operation.await
    }
}

impl Store for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.trip(self.store.acquire(claim)).await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.trip(self.store.renew(held)).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.trip(self.store.complete(held, outcome)).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.trip(self.store.release(key, token)).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.trip(self.store.abandon(key, token)).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.trip(self.store.get(key)).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.trip(self.store.purge_expired(limit)).await
    }

    fn attach(&self, wake: Wake) {
        self.store.attach(wake);
    }
}
