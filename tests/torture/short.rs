//! The crash torture, short enough for every run of the tests. The long one is `main.rs`.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use self::{ledger::Report, run::Plan, stores::StoreKind};

mod client;
mod ledger;
mod nodes;
mod random;
mod run;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
#[allow(dead_code, reason = "the long one knows more stores")]
mod stores;

/// What a short run on this store finds; nothing if its server is not installed.
fn torture(store: StoreKind) -> Option<Report> {
    // One at a time: two runs at once would only slow each other down.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = Plan {
        kill_store: store.can_be_killed(),
        store,
        time: Duration::from_secs(8),
        seed: 1,
        nodes: 4,
        clients: 16,
        demo: None,
    };
    let report = run::run(&plan)?;
    println!("{:?}: {report}", plan.store);
    Some(report)
}

/// Whatever was killed, every promise was kept; and enough was killed to tell.
fn keeps_its_promises(store: StoreKind) {
    let can_be_killed = store.can_be_killed();
    let Some(report) = torture(store) else {
        return;
    };
    assert!(report.is_clean(), "{report}");
    assert!(report.kills > 20, "{report}");
    assert_eq!(report.store_kills > 0, can_be_killed, "{report}");
    assert!(report.executions > 20, "{report}");
}

#[test]
fn kills_lose_nothing_on_redis() {
    keeps_its_promises(StoreKind::Redis);
}

#[test]
fn kills_lose_nothing_on_postgres() {
    keeps_its_promises(StoreKind::Postgres);
}

#[test]
fn kills_lose_nothing_on_mariadb() {
    keeps_its_promises(StoreKind::MariaDb);
}

#[test]
fn kills_lose_nothing_on_a_shared_file() {
    keeps_its_promises(StoreKind::Sqlite);
}

/// The same run finds what it looks for where it is to be found.
#[test]
fn kills_lose_something_on_a_redis_without_persistence() {
    let Some(report) = torture(StoreKind::RedisWeak) else {
        return;
    };
    assert!(!report.twice.is_empty(), "{report}");
}
