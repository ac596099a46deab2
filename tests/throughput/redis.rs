//! Redis, compared with redis-benchmark running the same two scripts. It cannot alternate them, so its pairs per second
//! are computed from the rates of the two scripts, and there is no time of a pair.

use std::{process::Command, time::Duration};

use idempotent_runtime::store::redis::RedisStore;

use crate::{
    driver::{CLIENTS, ROUNDS, Round, Sides, StoreClient, drive},
    servers::{redis::Redis, server},
};

const PAIRS: u64 = 40_000;

const ACQUIRE: &str = include_str!("../../idempotent-runtime/src/store/redis/acquire.lua");
const COMPLETE: &str = include_str!("../../idempotent-runtime/src/store/redis/complete.lua");

/// Whether the store is fast enough; nothing if that cannot be measured here.
pub(crate) async fn measure() -> Option<bool> {
    let redis = Redis::start()?;
    server("redis-benchmark")?;
    let store = RedisStore::connect(redis.url()).await.expect("a store");
    let mut sides = Sides::default();
    println!("{CLIENTS} connections");
    for _ in 0..ROUNDS {
        redis.ask(&["FLUSHALL"]);
        let bare = Round {
            rate: benchmark(&redis),
            p50: Duration::ZERO,
        };
        redis.ask(&["FLUSHALL"]);
        let ours = drive(vec![StoreClient::new(store.clone()); CLIENTS], PAIRS).await;
        sides.push(ours, bare);
    }
    Some(sides.is_fast())
}

/// Pairs per second by redis-benchmark.
fn benchmark(redis: &Redis) -> f64 {
    let acquire = load(redis, ACQUIRE);
    let of_acquire = [
        TOKEN,
        FINGERPRINT,
        "30000",
        "86430000",
        "",
        "",
        "0",
        "",
        "0",
    ];
    let acquires = run(redis, "1000000000", &acquire, &key(), &of_acquire);
    1.0 / (1.0 / acquires + 1.0 / completions(redis, "SPUBLISH"))
}

const TOKEN: &str = "tttttttttttttttt";
const FINGERPRINT: &str = "ffffffffffffffffffffffffffffffff";

/// As long as the store's keys; redis-benchmark draws the number in it.
fn key() -> String {
    format!("idempotent:{}__rand_int__", "0".repeat(52))
}

fn load(redis: &Redis, script: &str) -> String {
    redis.ask(&["SCRIPT", "LOAD", script])
}

/// Completions per second by redis-benchmark, which publish by this command or, if it is empty, not at all.
pub(crate) fn completions(redis: &Redis, publish: &str) -> f64 {
    let complete = load(redis, &format!("#!lua flags=allow-oom\n{COMPLETE}"));
    // Each key exists when it is completed, and most are completed for the first time.
    let space = PAIRS.to_string();
    redis.ask(&["FLUSHALL"]);
    let fill = r"for n = 0, ARGV[1] - 1 do
        redis.call('HSET', string.gsub(KEYS[1], '__rand_int__', string.format('%012d', n)), 's', 'R',
            'f', ARGV[3], 't', ARGV[2], 'a', 1, 'l', 2000000000000, 'i', '') end return 'OK'";
    let filled = redis.ask(&["EVAL", fill, "1", &key(), &space, TOKEN, FINGERPRINT]);
    assert_eq!(filled, "OK");
    let response = "x".repeat(217);
    let of_complete = [
        TOKEN,
        "D",
        &response,
        "86400000",
        publish,
        "idempotent:done:",
    ];
    run(redis, &space, &complete, &key(), &of_complete)
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
    // The script's line ends with the calls per second and the latencies.
    let line = output.lines().last().expect("a result");
    let numbers = line.rsplit("\",\"").collect::<Vec<_>>();
    let rate = numbers
        .get(numbers.len().wrapping_sub(2))
        .and_then(|rate| rate.parse().ok());
    rate.unwrap_or_else(|| panic!("{line:?} has no rate"))
}
