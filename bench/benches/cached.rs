//! Replays by `Cached` in front of a store that is far away, in relation to those of the memory store.
//!
//! The replays of both are of the same responses, in turns. Meanwhile the far store must not be asked at all.

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

/// How many are kept, and each replayed once in a turn.
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
    let far = Far::default();
    let cached = Idempotency::builder()
        .store(Cached::new(far.clone(), 64 << 20))
        .build();
    let memory = bench.filled(app::router());
    let cached = bench.filled(app::router_on(cached.expect("the defaults are valid")));
    let asked = far.asked();
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
        "round trips of first executions {asked}, of replays {}",
        far.asked() - asked
    );
    assert_eq!(far.asked(), asked, "a replay asked the store");
    assert!(!measuring() || pair.ratio <= MOST, "more than {MOST}");
}

struct Bench {
    runtime: Runtime,
    body: Bytes,
}

impl Bench {
    /// The router, once its engine keeps all records.
    fn filled(&self, router: Router) -> Router {
        self.ask(&router);
        router
    }

    fn replays(&self, router: &Router) -> Duration {
        compare::timed(|| self.ask(router))
    }

    fn ask(&self, router: &Router) {
        self.runtime.block_on(async {
            for n in 0..RECORDS as usize {
                let request = app::request(app::PAYMENTS, Some(&app::key("key", n)), &self.body);
                assert!(app::call(router, request).await.0.is_success());
            }
        });
    }
}

/// A store a millisecond away that counts how often it is asked.
#[derive(Clone, Default)]
struct Far {
    store: MemoryStore,
    asked: Arc<AtomicU64>,
}

impl Far {
    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    async fn trip<T>(&self, verb: impl Future<Output = T>) -> T {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
        verb.await
    }
}

impl Store for Far {
    fn name(&self) -> &'static str {
        "far"
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
