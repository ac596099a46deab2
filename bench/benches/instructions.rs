//! Instructions of one request on each path, counted by valgrind: the same number in every run, however busy the
//! machine is.
//!
//! The runtime, the router and the request are built before counting begins, and each path was taken before, so that
//! nothing is counted that happens once in a process.

#![allow(missing_docs, reason = "the macros generate undocumented public items")]

use std::hint::black_box;

use axum::{Router, extract::Request, http::StatusCode};
use gungraun::{library_benchmark, library_benchmark_group, main};
use idempotent_bench::app;
use tokio::runtime::Runtime;

const KNOWN: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

/// A request that is ready to be sent.
struct Ready {
    runtime: Runtime,
    router: Router,
    request: Request,
}

fn ready(path: &str, key: Option<&str>, size: usize) -> Ready {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("the runtime starts");
    let router = app::router();
    for n in 0..100 {
        let warm = app::key("warm", n);
        for key in [None, Some(KNOWN), Some(&*warm)] {
            for path in [app::BARE, app::PAYMENTS] {
                runtime.block_on(app::call(&router, app::request(path, key, &app::body(32))));
            }
        }
    }
    Ready {
        runtime,
        router,
        request: app::request(path, key, &app::body(size)),
    }
}

fn bare(size: usize) -> Ready {
    ready(app::BARE, None, size)
}

fn without_key(size: usize) -> Ready {
    ready(app::PAYMENTS, None, size)
}

fn first(size: usize) -> Ready {
    ready(app::PAYMENTS, Some(&app::key("new", 1)), size)
}

fn replay(size: usize) -> Ready {
    ready(app::PAYMENTS, Some(KNOWN), size)
}

#[library_benchmark]
#[bench::bare(args = (32), setup = bare)]
#[bench::bare_large(args = (1024), setup = bare)]
#[bench::without_key(args = (32), setup = without_key)]
#[bench::without_key_large(args = (1024), setup = without_key)]
#[bench::first_execution(args = (32), setup = first)]
#[bench::first_execution_large(args = (1024), setup = first)]
#[bench::replay(args = (32), setup = replay)]
#[bench::mismatch_large(args = (1024), setup = replay)]
fn request(ready: Ready) -> (StatusCode, Runtime, Router) {
    let Ready {
        runtime,
        router,
        request,
    } = ready;
    let answer = runtime.block_on(app::call(&router, black_box(request)));
    (answer.0, runtime, router)
}

library_benchmark_group!(name = requests; benchmarks = request);

main!(library_benchmark_groups = requests);
