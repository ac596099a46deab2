//! The crash torture, short enough for every run of the tests. The long one is `main.rs`.

use std::time::Duration;

use self::run::{Plan, StoreKind};

mod client;
mod ledger;
mod nodes;
mod random;
#[allow(dead_code, reason = "the long one knows more stores")]
mod run;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;

fn plan(store: StoreKind, seed: u64) -> Plan {
    Plan {
        store,
        kill_store: true,
        time: Duration::from_secs(8),
        seed,
        nodes: 4,
        clients: 16,
        demo: None,
    }
}

/// One test, because two runs at once would only slow each other down.
#[test]
fn kills_lose_nothing_on_a_durable_store_and_something_on_one_that_is_not() {
    let Some(report) = run::run(&plan(StoreKind::Durable, 1)) else {
        return;
    };
    println!("durable: {report}");
    assert!(report.is_clean(), "{report}");
    assert!(report.kills > 20 && report.store_kills > 2, "{report}");
    assert!(report.executions > 20, "{report}");

    // The same run finds what it looks for where it is to be found.
    let report = run::run(&plan(StoreKind::Weak, 1)).expect("Redis is installed");
    println!("without persistence: {report}");
    assert!(!report.twice.is_empty(), "{report}");
}
