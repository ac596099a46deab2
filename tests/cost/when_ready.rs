//! What a request with a key allocates where nothing waits: how often, and nothing large.
//!
//! On glibc an allocation of more than 1,032 bytes misses the thread's own cache, and in a process full of records it costs
//! more than all the rest. The number and the sizes are compared with the same handler without the attribute, which has a
//! large future of its own.

use std::{
    alloc::System,
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Waker},
};

use axum::{
    Extension, Json, Router, body::Body, extract::Request, http::StatusCode, routing::post,
};
use idempotent_runtime::{Idempotency, MemoryStore, idempotent};
use tokio::{runtime::Runtime, sync::Notify};
use tower::ServiceExt;
use tracking_allocator::{
    AllocationGroupId, AllocationGroupToken, AllocationRegistry, AllocationTracker, Allocator,
};

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator::system();

/// Larger ones miss the thread's cache.
const LARGE: usize = 1024;

static ALL: AtomicUsize = AtomicUsize::new(0);
static LARGE_ONES: AtomicUsize = AtomicUsize::new(0);

struct Counter;

impl AllocationTracker for Counter {
    fn allocated(&self, _: usize, size: usize, _: usize, _: AllocationGroupId) {
        ALL.fetch_add(1, Ordering::Relaxed);
        if size > LARGE {
            LARGE_ONES.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn deallocated(
        &self,
        _: usize,
        _: usize,
        _: usize,
        _: AllocationGroupId,
        _: AllocationGroupId,
    ) {
    }
}

/// Allocations, and those among them that are large.
#[derive(Clone, Copy, Debug)]
struct Count {
    all: usize,
    large: usize,
}

/// Counts what this makes.
fn count(token: &mut AllocationGroupToken, make: impl FnOnce()) -> Count {
    let read = || {
        (
            ALL.load(Ordering::Relaxed),
            LARGE_ONES.load(Ordering::Relaxed),
        )
    };
    let before = read();
    let guard = token.enter();
    make();
    drop(guard);
    let after = read();
    Count {
        all: after.0 - before.0,
        large: after.1 - before.1,
    }
}

async fn plain(Json(n): Json<u32>) -> (StatusCode, String) {
    (StatusCode::CREATED, n.to_string())
}

#[idempotent(ttl = "24h", wait = true)]
async fn annotated(Json(n): Json<u32>) -> (StatusCode, String) {
    (StatusCode::CREATED, n.to_string())
}

static GO_ON: Notify = Notify::const_new();

/// Responds when the test lets it.
async fn plain_slow(Json(n): Json<u32>) -> (StatusCode, String) {
    GO_ON.notified().await;
    (StatusCode::CREATED, n.to_string())
}

#[idempotent(ttl = "24h", wait = true)]
async fn annotated_slow(Json(n): Json<u32>) -> (StatusCode, String) {
    GO_ON.notified().await;
    (StatusCode::CREATED, n.to_string())
}

fn router() -> Router {
    let engine = Idempotency::builder().store(MemoryStore::new()).build();
    Router::new()
        .route("/plain", post(plain))
        .route("/annotated", post(annotated))
        .route("/plain-slow", post(plain_slow))
        .route("/annotated-slow", post(annotated_slow))
        .layer(Extension(engine.expect("the defaults are valid")))
}

fn request(path: &str, key: &str, body: &'static str) -> Request {
    Request::post(path)
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(Body::from(body))
        .expect("valid")
}

fn send(runtime: &Runtime, router: &Router, request: Request) -> StatusCode {
    let router = router.clone();
    let answered = runtime.block_on(router.oneshot(request));
    answered.expect("infallible").status()
}

/// Sends a request, a duplicate while the first is executed, and lets the handler go on.
fn send_twice(runtime: &Runtime, router: &Router, requests: [Request; 2]) {
    runtime.block_on(async {
        let send = |request| Box::pin(router.clone().oneshot(request));
        let [mut first, mut second] = requests.map(send);
        let mut context = Context::from_waker(Waker::noop());
        for sent in [&mut first, &mut second] {
            assert!(sent.as_mut().poll(&mut context).is_pending());
        }
        // One permit is kept for a handler that waits for it later: two bare handlers need two.
        GO_ON.notify_one();
        let answered = first.await.expect("infallible");
        GO_ON.notify_one();
        let also = second.await.expect("infallible");
        assert_eq!([answered.status(), also.status()], [StatusCode::CREATED; 2]);
    });
}

/// One test, since the counters are of the process.
#[test]
fn a_request_for_which_nothing_waits_allocates_little_and_nothing_large() {
    let _ = AllocationRegistry::set_global_tracker(Counter);
    AllocationRegistry::enable_tracking();
    let mut token = AllocationGroupToken::register().expect("the first group");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let router = router();
    // What happens once in a process, or when a table grows, is not a request's.
    for n in 0..2000 {
        for path in ["/plain", "/annotated"] {
            send(&runtime, &router, request(path, &format!("warm-{n}"), "1"));
        }
    }
    let mut measure = |path, key: &str, body, expected| {
        let request = request(path, key, body);
        let mut status = StatusCode::OK;
        let count = count(&mut token, || status = send(&runtime, &router, request));
        assert_eq!(status, expected, "{path} {key}");
        count
    };

    let (created, mismatch) = (StatusCode::CREATED, StatusCode::CONFLICT);
    let bare = measure("/plain", "k", "1", created);
    // Of several, the one for which no table grew.
    let keys: Vec<_> = (0..8)
        .map(|n| format!("5ee4d7cc-4a9c-4f0a-9a1f-0fd8b8a42a1{n}"))
        .collect();
    let firsts = keys
        .iter()
        .map(|key| measure("/annotated", key, "1", created));
    let first = firsts.min_by_key(|count| count.all).expect("several");
    let replay = measure("/annotated", &keys[0], "1", created);
    let mismatch = measure("/annotated", &keys[0], "2", mismatch);

    let mut twice = |path, keys: [&str; 2]| {
        let requests = keys.map(|key| request(path, key, "1"));
        count(&mut token, || send_twice(&runtime, &router, requests))
    };
    let bare_twice = twice("/plain-slow", ["a", "b"]);
    let waited = twice("/annotated-slow", ["wait", "wait"]);

    println!("bare {bare_twice:?}, waited {waited:?}");
    println!("bare {bare:?}, first {first:?}, replay {replay:?}, mismatch {mismatch:?}");
    assert!(
        first.all <= bare.all + MOST_OF_A_FIRST,
        "{first:?} {bare:?}"
    );
    assert!(
        replay.all <= bare.all + MOST_OF_A_REPLAY,
        "{replay:?} {bare:?}"
    );
    for (name, count) in [("first", first), ("replay", replay), ("mismatch", mismatch)] {
        assert!(
            count.large <= bare.large,
            "{name}: {count:?}, bare: {bare:?}"
        );
    }
    assert!(
        waited.large <= bare_twice.large,
        "{waited:?}, bare: {bare_twice:?}"
    );
}

/// The most that a first execution may add to the handler's own. Its metrics add none: an exporter may, when it
/// looks a time series up.
const MOST_OF_A_FIRST: usize = 12;
/// The same of a replay, which has no handler.
const MOST_OF_A_REPLAY: usize = 3;
