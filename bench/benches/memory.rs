//! Memory per completed record, without its body and headers.
//!
//! Requests are executed through the router. A counting allocator measures by how many live bytes they grow the heap.
//! Resident memory, as the operating system counts it, is printed too: it includes what the allocator rounds up.

use std::alloc::System;

use idempotent_bench::{app, measuring};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MOST_BYTES: usize = 250;

fn main() {
    let counts: &[usize] = if measuring() {
        &[100_000, 1_000_000]
    } else {
        &[10_000]
    };
    println!("  records   live bytes per record   resident   (without body and headers)");
    for &records in counts {
        let (live, resident) = per_record(records);
        println!("{records:>9} {live:>23} {resident:>10}");
        assert!(live <= MOST_BYTES, "more than {MOST_BYTES} bytes");
    }
}

/// Live and resident bytes per record.
fn per_record(records: usize) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("the runtime starts");
    let router = app::router();
    let body = app::body(32);
    let mut kept = 0;
    let mut execute = |n: usize| {
        let request = app::request(app::PAYMENTS, Some(&app::key("memory", n)), &body);
        let (status, answer) = runtime.block_on(app::call(&router, request));
        assert!(status.is_success());
        kept = answer.len() + "content-type".len() + "application/json".len();
    };
    // Initialises everything that exists once, such as thread-locals.
    execute(0);
    let before = (live(), resident());
    (1..=records).for_each(&mut execute);
    let (live, resident) = (live() - before.0, resident().saturating_sub(before.1));
    (
        live / records - kept,
        (resident / records).saturating_sub(kept),
    )
}

fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Resident memory of this process; zero if the operating system does not report it.
fn resident() -> usize {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return 0;
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    kilobytes.map_or(0, |kilobytes| kilobytes.trim().parse().unwrap_or(0) * 1024)
}
