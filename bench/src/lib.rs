//! What the benchmarks share: the routes they compare, the requests they send, and how they compare.
//!
//! Every number is a ratio to the same handler without the attribute, taken in the same process and in turns,
//! so that a noisy machine slows both sides alike. `README.md` says which command prints which number.

pub mod app;
pub mod compare;

/// Whether this is `cargo bench`; `cargo test --benches` only wants to know that the benchmark still works.
#[must_use]
pub fn measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
