//! How fast the Redis store is, against redis-benchmark running the same two scripts on the same server.
//!
//! ```text
//! cargo run --release -p idempotent-tests --bin redis-throughput
//! ```
//!
//! 1. Both have 64 clients, each with one request under way: 64 connections there, 64 tasks here.
//! 2. A pair is an acquire of a new key and its completion with a response of 200 bytes. redis-benchmark cannot
//!    alternate, so its pairs per second are put together from the rates of the two scripts.
//! 3. Rounds take turns, so that a machine that is busy with other things slows both alike. The last line is
//!    the ratio of the medians; the exit code is 1 if it is below 0.8.

use std::{
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use idempotent_runtime::{
    Fingerprint, StoreKey,
    store::{Claim, Outcome, Store, Token, conformance::response, redis::RedisStore},
};

use self::servers::redis::Redis;

#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;

const CLIENTS: usize = 64;
const PAIRS: u64 = 40_000;
const ROUNDS: usize = 5;
const BODY: [u8; 200] = [b'x'; 200];

const ACQUIRE: &str = include_str!("../../idempotent-runtime/src/store/redis/acquire.lua");
const COMPLETE: &str = include_str!("../../idempotent-runtime/src/store/redis/complete.lua");

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let (Some(redis), Some(_)) = (
        Redis::with(&["--appendonly", "yes"]),
        servers::server("redis-benchmark"),
    ) else {
        return ExitCode::from(2);
    };
    let store = RedisStore::connect(redis.url()).await.expect("a store");
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        redis.ask(&["FLUSHALL"]);
        bare.push(benchmark(&redis));
        redis.ask(&["FLUSHALL"]);
        ours.push(pairs(&store).await);
        println!(
            "round {round}: store {:.0}, redis-benchmark {:.0} pairs/s",
            ours[round - 1],
            bare[round - 1]
        );
    }
    let ratio = median(&mut ours) / median(&mut bare);
    println!("ratio {ratio:.2}");
    if ratio >= 0.8 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Pairs per second by the store.
async fn pairs(store: &RedisStore) -> f64 {
    let next = Arc::new(AtomicU64::new(0));
    let outcome = Outcome::Response(response(201, &[], &BODY));
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (store, next, outcome) = (store.clone(), Arc::clone(&next), outcome.clone());
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= PAIRS {
                    return;
                }
                let claim = claim(number);
                store.acquire(&claim).await.expect("acquire");
                store
                    .complete(&claim.held(), &outcome)
                    .await
                    .expect("complete");
            }
        });
    }
    clients.join_all().await;
    rate(PAIRS, started.elapsed())
}

fn claim(number: u64) -> Claim {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    let fingerprint = Fingerprint::from_bytes([1; 32]);
    let (lease, ttl) = (Duration::from_secs(30), Duration::from_secs(86_400));
    Claim::new(
        StoreKey::from_bytes(key),
        fingerprint,
        Token::random(),
        lease,
        ttl,
    )
}

/// Pairs per second by redis-benchmark.
fn benchmark(redis: &Redis) -> f64 {
    let load = |text: &str| redis.ask(&["SCRIPT", "LOAD", text]);
    let acquire = load(ACQUIRE);
    let complete = load(&format!("#!lua flags=allow-oom\n{COMPLETE}"));
    // As long as a key of the store's; the number in it is redis-benchmark's to draw.
    let key = format!("idempotent:{}__rand_int__", "0".repeat(52));
    let (token, fingerprint, response) = ("t".repeat(16), "f".repeat(32), "x".repeat(217));
    // Each key exists when it is completed, most of them for the first time.
    let space = PAIRS.to_string();
    let of_acquire = [&*token, &fingerprint, "30000", "86430000", "0", "", "0"];
    let acquires = run(redis, "1000000000", &acquire, &key, &of_acquire);
    redis.ask(&["FLUSHALL"]);
    let fill = r"for n = 0, ARGV[1] - 1 do
        redis.call('HSET', string.gsub(KEYS[1], '__rand_int__', string.format('%012d', n)), 's', 'R',
            'f', ARGV[3], 't', ARGV[2], 'a', 1, 'l', 2000000000000, 'i', '') end return 'OK'";
    let filled = redis.ask(&["EVAL", fill, "1", &key, &space, &token, &fingerprint]);
    assert_eq!(filled, "OK");
    let message = "m".repeat(32);
    let of_complete = [
        &*token,
        "D",
        &response,
        "86400000",
        "idempotent:done",
        &message,
    ];
    let completions = run(redis, &space, &complete, &key, &of_complete);
    1.0 / (1.0 / acquires + 1.0 / completions)
}

/// Calls per second of one script on keys from a space of this size.
fn run(redis: &Redis, space: &str, script: &str, key: &str, arguments: &[&str]) -> f64 {
    let (port, calls, clients) = (
        redis.port().to_string(),
        PAIRS.to_string(),
        CLIENTS.to_string(),
    );
    let output = Command::new("redis-benchmark")
        .args([
            "-p", &port, "-c", &clients, "-n", &calls, "-r", space, "--csv",
        ])
        .args(["EVALSHA", script, "1", key])
        .args(arguments)
        .output()
        .expect("redis-benchmark");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    // The script's line ends with the calls per second and what it says about latencies.
    let line = output.lines().last().expect("a result");
    let numbers = line.rsplit("\",\"").collect::<Vec<_>>();
    let rate = numbers
        .get(numbers.len().wrapping_sub(2))
        .and_then(|rate| rate.parse().ok());
    rate.unwrap_or_else(|| panic!("{line:?} has no rate"))
}

fn rate(calls: u64, time: Duration) -> f64 {
    let calls = u32::try_from(calls).map_or(f64::MAX, f64::from);
    calls / time.as_secs_f64()
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
