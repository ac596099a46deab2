//! The soak: an hour of mixed traffic over the attribute and the layer, HTTP/1.1 and h2, with stores that fail and processes
//! that end. Nothing is executed twice, nothing acknowledged is lost, no key stays blocked without a reason, and memory
//! and tasks are flat.
//!
//! ```text
//! cargo run -p idempotent-tests --bin soak -- --minutes 60
//! cargo run -p idempotent-tests --bin soak -- --minutes 5 --stores redis --seed 7
//! ```
//!
//! | option | default | |
//! |---|---|---|
//! | `--minutes` | 60 | how long new rounds begin; at the end come twelve minutes at most, until no claim is withdrawn any more |
//! | `--seed` | from the clock | decides what is asked for, which client leaves when, and what fails |
//! | `--stores` | `memory,redis,postgres` | the stores, of which each round chooses one; private servers are started |
//! | `--round` | 20 | seconds of traffic in one round |
//! | `--clients` | 32 | how many clients send at the same time |
//! | `--at-once` | | ends without waiting for the last withdrawals |
//!
//! The exit code is 0 if every rule held, 1 if one was broken, and 2 if the run could not start. `tests/README.md` says what
//! the rules are; `short.rs` has a run of half a minute for every run of the tests.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use self::{
    order::Protection,
    run::{Plan, Plant},
    store::StoreKind,
};

mod answer;
mod audit;
mod fleet;
#[allow(dead_code, reason = "the tests of the checkers ask it for more")]
mod ledger;
mod measure;
mod node;
mod order;
#[path = "../support/proxy.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod proxy;
mod quiet;
#[path = "../torture/random.rs"]
mod random;
#[allow(dead_code, reason = "the tests ask it for more")]
mod report;
mod run;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod service;
mod store;
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with tests that use more of it"
)]
mod support;
mod traffic;
mod watch;

fn main() -> ExitCode {
    let plan = match parse(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("soak: {error}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}", plan.seed);
    quiet::planned_panics();
    let report = run::run(&plan);
    println!("{report}");
    if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut plan = Plan {
        seed: u64::from(now.subsec_nanos()),
        time: Duration::from_secs(3600),
        round: Duration::from_secs(20),
        clients: 32,
        stores: vec![StoreKind::Memory, StoreKind::Redis, StoreKind::Postgres],
        protections: vec![Protection::Attribute, Protection::Layer],
        sampled: Duration::from_secs(5),
        patience: run::PATIENCE,
        outlives_withdrawals: true,
        reaches: &[],
        plant: Plant::Nothing,
    };
    while let Some(option) = arguments.next() {
        if option == "--at-once" {
            plan.outlives_withdrawals = false;
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("{option} needs a value"))?;
        let number = || {
            let number = value.parse().ok().filter(|&number: &u64| number <= 100_000);
            number.ok_or_else(|| format!("{option}: {value:?} is not a number up to 100000"))
        };
        match option.as_str() {
            "--minutes" => plan.time = Duration::from_secs(number()? * 60),
            "--round" => plan.round = Duration::from_secs(number()?.max(1)),
            "--clients" => plan.clients = number()?.max(1),
            "--seed" => {
                let seed = value.parse();
                plan.seed = seed.map_err(|_| format!("--seed: {value:?} is not a number"))?;
            }
            "--stores" => {
                let named = |name| StoreKind::named(name).ok_or(name);
                let stores: Result<_, _> = value.split(',').map(named).collect();
                plan.stores = stores.map_err(|name| {
                    format!("--stores: {name:?}: expected memory, redis or postgres")
                })?;
            }
            _ => {
                return Err(format!(
                    "unknown option {option}: see the head of tests/soak/main.rs"
                ));
            }
        }
    }
    Ok(plan)
}
