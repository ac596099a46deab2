//! Handlers that block their thread keep their lease (DESIGN.md, section 4). In real time, on two threads.

use std::time::Duration;

use axum::{Extension, Router, routing::post};
use idempotent_runtime::{Idempotency, MemoryStore, Policy, idempotent};

use crate::support::{Server, TestRequest, in_real_time};

/// How long the handlers block: longer than two of their leases.
const BLOCKED: Duration = Duration::from_millis(6500);

#[idempotent(on_crash = "retry", lease = "3s")]
async fn block_in_place_and_retry() -> String {
    tokio::task::block_in_place(|| std::thread::sleep(BLOCKED));
    "charged".to_owned()
}

#[idempotent(lease = "3s")]
async fn block_the_thread() -> String {
    std::thread::sleep(BLOCKED);
    "charged".to_owned()
}

#[idempotent(lease = "3s")]
async fn block_after_an_await() -> String {
    tokio::task::yield_now().await;
    std::thread::sleep(BLOCKED);
    "charged".to_owned()
}

fn app(store: &MemoryStore) -> Router {
    let engine = Idempotency::builder()
        .store(store.clone())
        .policy(Policy::new());
    Router::new()
        .route("/in-place", post(block_in_place_and_retry))
        .route("/thread", post(block_the_thread))
        .route("/later", post(block_after_an_await))
        .layer(Extension(engine.build().unwrap()))
}

/// How many runtimes are tried at the same time. Which worker polls timers and sockets when a handler begins to block its
/// thread is a matter of luck, and with one runtime the keeper is seldom needed.
const RUNTIMES: usize = 12;

#[test]
fn a_blocked_handler_keeps_its_key_in_its_process_and_in_others() {
    std::thread::scope(|threads| {
        for _ in 0..RUNTIMES {
            for path in ["/in-place", "/thread", "/later"] {
                threads.spawn(move || in_real_time(keeps_its_key(path)));
            }
        }
    });
}

async fn keeps_its_key(path: &str) {
    // Given a handler that blocks its thread for longer than its lease.
    let store = MemoryStore::new();
    let here = Server::start(app(&store)).await;
    let there = Server::start(app(&store)).await;
    let request = TestRequest::post(path).key("k");
    let first = here.send(&request);

    // When duplicates arrive, here and in another process, while it runs and after its first lease.
    let duplicates = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let early = here.send(&request);
        let late = async {
            tokio::time::sleep(Duration::from_millis(3500)).await;
            there.send(&request).await
        };
        tokio::join!(early, late)
    };
    let (first, (early, late)) = tokio::join!(first, duplicates);

    // Then each gets the answer of the one execution.
    assert_eq!((first.status.as_u16(), first.text()), (200, "charged"));
    assert!(!first.replayed());
    for duplicate in [early, late] {
        assert_eq!(
            (duplicate.status.as_u16(), duplicate.text()),
            (200, "charged"),
            "{path}"
        );
        assert!(duplicate.replayed(), "{path}");
    }
}
