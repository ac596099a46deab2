//! The soak, short enough for every run of the tests, and what shows that it finds what it looks for. The long one is
//! `main.rs`. It checks invariants I2, I3, I4, I5, I10, I15 and L1 of DESIGN.md, section 9.

use std::time::Duration;

use self::{
    ledger::Rule,
    order::Protection,
    report::Report,
    run::{Plan, Plant},
    store::StoreKind,
};

mod answer;
mod audit;
mod checkers;
mod fleet;
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
mod report;
mod run;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod service;
#[allow(dead_code, reason = "the long one can choose stores")]
mod store;
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with tests that use more of it"
)]
mod support;
mod traffic;
mod watch;

/// What tells that the traffic was mixed enough.
const REACHES: [&str; 11] = [
    "effects after another process had taken over",
    "executions after a take-over",
    "outcomes shown after `outcome_unknown`",
    "answers: handler_panicked",
    "answers: mismatch",
    "answers: conflict",
    "answers: 503",
    "answers: refused by the handler",
    "keys at their end: response_not_stored",
    "http/1.1: RST",
    "h2: a stream is reset",
];

/// A plan of half a minute.
fn plan(stores: &[StoreKind]) -> Plan {
    Plan {
        seed: rand::random::<u32>().into(),
        time: Duration::ZERO,
        round: Duration::from_secs(4),
        clients: 24,
        stores: stores.to_vec(),
        protections: vec![Protection::Attribute, Protection::Layer],
        sampled: Duration::from_millis(500),
        patience: run::PATIENCE,
        outlives_withdrawals: false,
        reaches: &[],
        plant: Plant::Nothing,
    }
}

fn run(plan: &Plan) -> Report {
    quiet::planned_panics();
    println!("seed {}", plan.seed);
    let report = run::run(plan);
    println!("{report}");
    report
}

#[test]
fn mixed_traffic_breaks_no_rule() {
    let stores = [StoreKind::Memory, StoreKind::Redis, StoreKind::Postgres];
    let report = run(&Plan {
        reaches: &REACHES,
        ..plan(&stores)
    });
    assert!(report.is_clean(), "{report}");
    for what in REACHES {
        assert!(report.counted(what) > 0, "{what}: {report}");
    }
}

/// Without protection, the same traffic executes twice and shows two outcomes.
#[test]
fn it_finds_what_an_unprotected_service_does() {
    let report = run(&Plan {
        protections: vec![Protection::None],
        round: Duration::from_secs(1),
        patience: Duration::from_secs(5),
        ..plan(&[StoreKind::Memory])
    });
    assert!(report.broken(Rule::ExecutedTwice) > 0, "{report}");
    assert!(report.broken(Rule::Differing) > 0, "{report}");
}
