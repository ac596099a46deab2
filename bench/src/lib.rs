//! What the benchmarks share: the routes they compare, the requests they send, and the comparison.
//!
//! Ratios are taken in one process from alternating runs, so that other load on the machine slows both sides alike.
//! `README.md` says which command prints which number.

pub mod app;
pub mod compare;
pub mod scale;

/// Whether this is `cargo bench`; `cargo test --benches` only checks that the benchmark works.
#[must_use]
pub fn measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
