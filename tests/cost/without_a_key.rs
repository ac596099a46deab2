//! What a request without a key costs more with the attribute than without it.
//!
//! Allocations are counted and bounded. Times are printed by
//! `cargo test --release -p idempotent-tests --test cost -- --nocapture`, and bounded in a release build only: rounds
//! of both handlers alternate, and the fastest round of each counts, because other load only slows a round.

mod json;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::StatusCode,
    routing::post,
};
use idempotent_runtime::{Idempotency, IdempotencyLayer, idempotent};
use tower::ServiceExt;

/// The most an annotated handler may add.
const ALLOCATIONS: u64 = 4;
const TIME: Duration = Duration::from_micros(1);
/// The most that it takes to tell handlers inside of a layer which engine is theirs: the extension, and room for it.
const TOLD: u64 = 2;

type App = Arc<str>;

async fn plain(
    State(app): State<App>,
    Path(id): Path<u32>,
    Json(n): Json<u32>,
) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("{app} {id} {n}"))
}

#[idempotent(ttl = "24h", wait = true)]
async fn annotated(
    State(app): State<App>,
    Path(id): Path<u32>,
    Json(n): Json<u32>,
) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("{app} {id} {n}"))
}

async fn plain_empty() {}

#[idempotent]
async fn annotated_empty() {}

fn router() -> Router {
    let engine = Idempotency::builder()
        .build()
        .expect("the defaults are valid");
    let router = Router::new()
        .route("/plain/{id}", post(plain))
        .route("/annotated/{id}", post(annotated));
    let router = router
        .route("/plain", post(plain_empty))
        .route("/annotated", post(annotated_empty));
    router.layer(Extension(engine)).with_state(App::from("app"))
}

/// A route behind a layer of this engine, beside one behind a layer that does nothing.
fn layered(engine: Idempotency) -> Router {
    let nothing = Router::new()
        .route("/plain/{id}", post(plain))
        .route_layer(tower::layer::util::Identity::new());
    let layer = Router::new()
        .route("/layered/{id}", post(plain))
        .route_layer(IdempotencyLayer::new(engine));
    nothing.merge(layer).with_state(App::from("app"))
}

fn request(path: &str) -> Request {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Body::from("7")).expect("valid")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
}

/// Allocations of one request, the routing included.
fn allocations(router: &Router, path: &str) -> u64 {
    let runtime = runtime();
    let mut counts = Vec::new();
    for _ in 0..3 {
        let (router, request) = (router.clone(), request(path));
        let counted = allocation_counter::measure(|| {
            let response = runtime
                .block_on(router.oneshot(request))
                .expect("infallible");
            assert!(
                response.status().is_success(),
                "{path}: {}",
                response.status()
            );
        });
        counts.push(counted.count_total);
    }
    // The first request initialises thread-locals.
    counts.into_iter().min().unwrap_or_default()
}

#[test]
fn a_request_without_a_key_adds_few_allocations() {
    let router = router();
    for (plain, annotated) in [("/plain/1", "/annotated/1"), ("/plain", "/annotated")] {
        let (plain, annotated) = (allocations(&router, plain), allocations(&router, annotated));
        let added = annotated.saturating_sub(plain);
        println!("allocations: plain {plain}, annotated {annotated}, added {added}");
        assert!(added <= ALLOCATIONS, "added {added}");
    }
}

#[test]
fn a_request_without_a_key_passes_a_layer_without_an_allocation() {
    let added = |engine: Idempotency| {
        let router = layered(engine);
        let layered = allocations(&router, "/layered/1");
        let plain = allocations(&router, "/plain/1");
        println!("allocations: plain {plain}, behind the layer {layered}");
        layered.saturating_sub(plain)
    };
    let installed = Idempotency::builder().install().expect("the only one");
    assert_eq!(added(installed.clone()), 0);
    // Handlers inside find an installed engine without the layer. That of another layer it has to tell them.
    let other = Idempotency::builder()
        .build()
        .expect("the defaults are valid");
    assert!(added(other) <= TOLD);
    // Unless something outside has told them.
    let router = layered(installed.clone()).layer(installed);
    let (layered, plain) = (
        allocations(&router, "/layered/1"),
        allocations(&router, "/plain/1"),
    );
    assert_eq!(layered, plain);
}

#[test]
fn a_request_without_a_key_adds_little_time() {
    const ROUNDS: u32 = 200;
    const REQUESTS: u32 = if cfg!(debug_assertions) { 10 } else { 500 };
    let (router, runtime) = (router(), runtime());
    let round = |path: &str| {
        let requests: Vec<_> = (0..REQUESTS).map(|_| request(path)).collect();
        runtime.block_on(async {
            let start = Instant::now();
            for request in requests {
                black_box(router.clone().oneshot(request).await).expect("infallible");
            }
            start.elapsed() / REQUESTS
        })
    };
    for (plain, annotated) in [("/plain/1", "/annotated/1"), ("/plain", "/annotated")] {
        let (mut fastest_plain, mut fastest_annotated) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            fastest_plain = fastest_plain.min(round(plain));
            fastest_annotated = fastest_annotated.min(round(annotated));
        }
        let added = fastest_annotated.saturating_sub(fastest_plain);
        println!("time: plain {fastest_plain:?}, annotated {fastest_annotated:?}, added {added:?}");
        assert!(cfg!(debug_assertions) || added <= TIME, "added {added:?}");
    }
}
