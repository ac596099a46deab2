//! Allocations per request, by the path it takes.
//!
//! A counting global allocator counts the `alloc` and `realloc` calls of many requests, from the router's `oneshot` to
//! the end of the response, without building the request. Fractions come from tables that grew. "Behind layer" is the
//! bare handler behind the layer that gives annotated handlers their engine; a request without a key is compared with
//! that. It is a benchmark of its own, because counting takes time.

use std::alloc::System;

use axum::extract::Request;
use idempotent_bench::{app, measuring};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most allocations that a request without a key may add to axum's own.
const MOST_WITHOUT_KEY: f64 = 4.0;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("the runtime starts");
    let router = app::router();
    let requests: u32 = if measuring() { 10_000 } else { 10 };
    let mut number = 0;
    let mut count = |path: &str, key: &dyn Fn(usize) -> Option<String>, size: usize| {
        let body = app::body(size);
        let mut batch = || -> Vec<Request> {
            let keys = (0..requests).map(|_| {
                number += 1;
                key(number)
            });
            keys.map(|key| app::request(path, key.as_deref(), &body))
                .collect()
        };
        let run = |batch: Vec<Request>| {
            runtime.block_on(async {
                for request in batch {
                    app::call(&router, request).await;
                }
            });
        };
        run(batch());
        let batch = batch();
        let region = Region::new(ALLOCATOR);
        run(batch);
        let change = region.change();
        let per = |count: usize| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            f64::from(count) / f64::from(requests)
        };
        (
            per(change.allocations + change.reallocations),
            per(change.bytes_allocated),
        )
    };
    for size in [32, 1024] {
        println!("{size}-byte JSON body   allocations   more than bare   bytes allocated");
        let bare = count(app::BARE, &|_| None, size).0;
        let layered = count(app::BARE_LAYERED, &|_| None, size).0;
        let mut row = |name: &str, path: &str, key: &dyn Fn(usize) -> Option<String>| {
            let (calls, bytes) = count(path, key, size);
            println!(
                "{name:20} {calls:>10.1} {:>16.1} {bytes:>17.0}",
                calls - bare
            );
            calls - bare
        };
        row("bare", app::BARE, &|_| None);
        row("bare, behind layer", app::BARE_LAYERED, &|_| None);
        let without_key = row("without a key", app::PAYMENTS, &|_| None) + bare - layered;
        row("first execution", app::PAYMENTS, &|n| {
            Some(app::key("first", n))
        });
        row("replay", app::PAYMENTS, &|_| Some(format!("replay-{size}")));
        // A key that was executed with another body.
        let known = format!("mismatch-{size}");
        let first = app::request(app::PAYMENTS, Some(&known), &app::body(size + 1));
        runtime.block_on(app::call(&router, first));
        row("mismatch", app::PAYMENTS, &|_| Some(known.clone()));
        println!();
        assert!(
            without_key <= MOST_WITHOUT_KEY,
            "more than {MOST_WITHOUT_KEY} for a request without a key"
        );
    }
}
