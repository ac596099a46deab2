//! How fast a store is, compared with a bare client that sends the same two statements to the same server.
//!
//! ```text
//! cargo run --release -p idempotent-tests --bin throughput -- redis
//! cargo run --release -p idempotent-tests --bin throughput -- redis-push
//! cargo run --release -p idempotent-tests --bin throughput -- postgres
//! cargo run --release -p idempotent-tests --bin throughput -- mariadb
//! cargo run --release -p idempotent-tests --bin throughput -- transactions
//! ```
//!
//! 1. A pair is an acquire of a new key and its completion with a response of 200 bytes.
//! 2. Both sides have 64 connections and 64 tasks with one request at a time each; then one connection and one task.
//!    The bare client is sqlx with a connection for each task and nothing else; for Redis it is redis-benchmark.
//!    PostgreSQL is also compared with pgbench, which runs the same two statements as a script.
//!    `redis-push` compares completions that publish, with processes that listen, and completions that do not.
//!    `transactions` compares requests over HTTP to a handler with `#[idempotent(transaction)]` and to the same handler with
//!    a transaction of its own, on PostgreSQL.
//! 3. Rounds alternate between the sides, so that other load on the machine slows all of them alike.
//! 4. The exit code is 1 if, by the medians of all rounds, the ratio of pairs per second at 64 connections is below 0.8
//!    or the ratio of the times at p50 at one connection is above 1.2, or requests with a transaction are below 0.55 of those
//!    without the attribute. It is 2 if nothing could be measured.

use std::process::ExitCode;

mod driver;
mod mysql;
mod postgres;
mod push;
mod redis;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod transactions;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let measured = match std::env::args().nth(1).as_deref() {
        Some("redis") => redis::measure().await,
        Some("redis-push") => push::measure().await,
        Some("postgres") => postgres::measure().await,
        Some("mariadb") => mysql::measure().await,
        Some("transactions") => transactions::measure().await,
        _ => {
            eprintln!(
                "throughput: which store? redis, redis-push, postgres, mariadb or transactions"
            );
            None
        }
    };
    match measured {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => ExitCode::from(2),
    }
}
