//! The crash torture, short enough for every run of the tests. The long one is `main.rs`. It checks invariants I2, I4
//! and I5 of DESIGN.md, section 9.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use self::{app::App, ledger::Report, run::Plan, stores::StoreKind};

mod app;
mod client;
mod face;
mod ledger;
mod nodes;
#[path = "../support/proxy.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod proxy;
mod random;
mod run;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
#[allow(dead_code, reason = "the long one has more stores")]
mod stores;
mod transfers;

/// The report of a short run on this store; nothing if its server is not installed.
fn torture(app: App, store: StoreKind) -> Option<Report> {
    // One at a time: two runs at once would slow each other down.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = Plan {
        app,
        lose_replies: app == App::Transfers,
        kill_store: store.can_be_killed(),
        store,
        time: Duration::from_secs(8),
        seed: 1,
        nodes: 4,
        clients: 16,
        demo: None,
    };
    let report = run::run(&plan)?;
    println!("{app:?} on {:?}: {report}", plan.store);
    Some(report)
}

/// Asserts that every guarantee held whatever was killed, and that enough was killed and executed to tell.
fn assert_guarantees_hold(app: App, store: StoreKind) {
    let can_be_killed = store.can_be_killed();
    let Some(report) = torture(app, store) else {
        return;
    };
    assert!(report.is_clean(), "{report}");
    assert!(report.kills > 20, "{report}");
    assert_eq!(report.store_kills > 0, can_be_killed, "{report}");
    assert!(report.executions > 20, "{report}");
    let loses_replies = app == App::Transfers && can_be_killed;
    assert_eq!(report.lost_replies > 0, loses_replies, "{report}");
}

#[test]
fn kills_lose_nothing_on_redis() {
    assert_guarantees_hold(App::Payments, StoreKind::Redis);
}

#[test]
fn kills_lose_nothing_on_postgres() {
    assert_guarantees_hold(App::Payments, StoreKind::Postgres);
}

#[test]
fn kills_lose_nothing_on_mariadb() {
    assert_guarantees_hold(App::Payments, StoreKind::MariaDb);
}

#[test]
fn kills_lose_nothing_on_a_shared_file() {
    assert_guarantees_hold(App::Payments, StoreKind::Sqlite);
}

#[test]
fn kills_tear_no_transfer_on_postgres() {
    assert_guarantees_hold(App::Transfers, StoreKind::Postgres);
}

#[test]
fn kills_tear_no_transfer_on_mariadb() {
    assert_guarantees_hold(App::Transfers, StoreKind::MariaDb);
}

#[test]
fn kills_tear_no_transfer_in_a_shared_file() {
    assert_guarantees_hold(App::Transfers, StoreKind::Sqlite);
}

/// The same run finds violations where they are to be expected.
#[test]
fn kills_execute_twice_on_a_redis_without_persistence() {
    let Some(report) = torture(App::Payments, StoreKind::RedisWeak) else {
        return;
    };
    assert!(!report.twice.is_empty(), "{report}");
}
