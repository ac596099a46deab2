//! How fast a store is, against a bare client that sends the same two statements to the same server.
//!
//! ```text
//! cargo run --release -p idempotent-tests --bin throughput -- redis
//! cargo run --release -p idempotent-tests --bin throughput -- postgres
//! cargo run --release -p idempotent-tests --bin throughput -- mariadb
//! ```
//!
//! 1. A pair is an acquire of a new key and its completion with a response of 200 bytes.
//! 2. Both sides have 64 connections and as many tasks, each with one request under way, then one. The bare client
//!    is sqlx with a connection for each task and nothing else; of Redis it is redis-benchmark. PostgreSQL is also
//!    asked by pgbench, with the same two statements as a script.
//! 3. Rounds take turns, so that a machine that is busy with other things slows all alike.
//! 4. At 64 connections the ratio of pairs per second counts, by the medians of all rounds: the exit code is 1 if it
//!    is below 0.8. At one connection the ratio of the times at p50 counts: the exit code is 1 if it is above 1.2.
//!    It is 2 if nothing could be measured.

use std::process::ExitCode;

mod driver;
mod mysql;
mod postgres;
mod redis;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let measured = match std::env::args().nth(1).as_deref() {
        Some("redis") => redis::measure().await,
        Some("postgres") => postgres::measure().await,
        Some("mariadb") => mysql::measure().await,
        _ => {
            eprintln!("throughput: which store? redis, postgres or mariadb");
            None
        }
    };
    match measured {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => ExitCode::from(2),
    }
}
