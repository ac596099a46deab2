//! The soak's own checks find what they are for: each is given a planted fault.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::{
    answer::{Answer, Shown},
    ledger::{Ledger, Rule, outcome},
    measure::growth,
    order::{MAX_LIFETIME, Order, Protection, Route, Work},
    report::Report,
    run::{Plan, Plant},
    store::StoreKind,
};

/// An order of a plain execution on this route, in a new ledger.
fn ledger(route: Route) -> Ledger {
    let ledger = Ledger::default();
    ledger.order(Order {
        key: 1,
        protection: Protection::Attribute,
        route,
        work: Work::Takes(Duration::ZERO),
        size: 0,
        rivals: false,
    });
    ledger
}

/// The outcome of this execution.
fn shown(execution: usize, nonce: u64) -> Answer {
    Answer::Outcome(Shown {
        key: 1,
        execution,
        status: StatusCode::CREATED,
        headers: Vec::new(),
        body: outcome(1, execution, nonce, 8),
    })
}

#[track_caller]
fn assert_broken(ledger: &Ledger, expected: &[Rule]) {
    let violations = ledger.violations();
    let broken: Vec<_> = violations.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(broken, expected, "{violations:?}");
}

#[test]
fn a_second_execution_is_found() {
    let ledger = ledger(Route::Refuse);
    let first = ledger.start(1, 1, false);
    ledger.effect(1, first);
    assert_broken(&ledger, &[]);
    ledger.start(1, 1, false);
    assert_broken(&ledger, &[Rule::ExecutedTwice]);
}

#[test]
fn an_execution_after_a_release_is_none_too_many() {
    let ledger = ledger(Route::Refuse);
    let first = ledger.start(1, 1, false);
    ledger.released(1, first);
    ledger.start(1, 1, false);
    assert_broken(&ledger, &[]);
}

#[test]
fn under_retry_the_same_attempt_twice_is_found_and_the_next_one_is_right() {
    let ledger = ledger(Route::Retry);
    ledger.start(1, 1, false);
    ledger.start(1, 2, false);
    assert_broken(&ledger, &[]);
    ledger.start(1, 2, false);
    assert_broken(&ledger, &[Rule::ExecutedTwice]);
}

#[test]
fn an_execution_before_the_expiry_is_found() {
    let ledger = ledger(Route::Brief);
    ledger.start(1, 1, false);
    ledger.start(1, 1, false);
    assert_broken(&ledger, &[Rule::ExecutedTwice]);
}

#[test]
fn another_outcome_is_found() {
    let ledger = ledger(Route::Retry);
    for attempt in 1..=2 {
        let execution = ledger.start(1, attempt, false);
        ledger.effect(1, execution);
    }
    ledger.answered(1, false, Instant::now(), &shown(1, 7));
    ledger.answered(1, false, Instant::now(), &shown(1, 7));
    assert_broken(&ledger, &[]);
    ledger.answered(1, false, Instant::now(), &shown(1, 8));
    ledger.answered(1, false, Instant::now(), &shown(2, 7));
    assert_broken(&ledger, &[Rule::Differing, Rule::Differing]);
}

#[test]
fn an_outcome_of_no_execution_is_found() {
    let ledger = ledger(Route::Refuse);
    ledger.answered(1, false, Instant::now(), &shown(1, 7));
    let execution = ledger.start(1, 1, false);
    // Before its effect, and for a request that asks for something else.
    ledger.answered(1, false, Instant::now(), &shown(execution, 7));
    ledger.effect(1, execution);
    ledger.answered(1, true, Instant::now(), &shown(execution, 7));
    assert_broken(&ledger, &[Rule::Unexpected; 3]);
}

#[test]
fn an_answer_that_contradicts_an_acknowledged_outcome_is_found() {
    let ledger = ledger(Route::Refuse);
    let execution = ledger.start(1, 1, false);
    ledger.effect(1, execution);
    let before = Instant::now();
    ledger.answered(1, false, before, &shown(execution, 7));
    ledger.answered(1, false, Instant::now(), &Answer::NotStored);
    assert_broken(&ledger, &[Rule::Lost]);
}

#[test]
fn a_response_that_is_not_stored_is_found_unless_a_stream_may_have_outlived_its_lifetime() {
    let ledger = ledger(Route::Refuse);
    ledger.start(1, 1, false);
    ledger.answered(1, false, Instant::now(), &Answer::NotStored);
    assert_broken(&ledger, &[Rule::Unexpected]);

    let streaming = Ledger::default();
    streaming.order(Order {
        work: Work::Streams(Duration::ZERO),
        ..ledger.entry(1).expect("ordered").order
    });
    let execution = streaming.start(1, 1, false);
    streaming.ended(1, execution);
    streaming.answered(1, false, Instant::now(), &Answer::NotStored);
    assert_broken(&streaming, &[Rule::Unexpected]);
    streaming.start_earlier(1, MAX_LIFETIME);
    streaming.answered(1, false, Instant::now(), &Answer::NotStored);
    assert_broken(&streaming, &[Rule::Unexpected]);
}

#[test]
fn a_request_without_an_answer_is_found() {
    let ledger = ledger(Route::Refuse);
    ledger.answered(1, false, Instant::now(), &Answer::Nothing);
    assert_broken(&ledger, &[Rule::Unanswered]);
}

#[test]
fn growing_memory_is_found() {
    let steps = || (0..60).map(f64::from);
    let leaking: Vec<_> = steps().map(|n| 80.0 + n * 2.0).collect();
    assert!(growth(&leaking).is_some());
    let warm: Vec<_> = steps().map(|n| 80.0 + n.min(15.0) * 8.0).collect();
    assert_eq!(growth(&warm), None, "only while it warms up");
    let swinging: Vec<_> = steps().map(|n| 80.0 + (n % 7.0) * 9.0).collect();
    assert_eq!(growth(&swinging), None);
}

/// A run of a moment, in memory, with this fault.
fn planted(plant: Plant) -> Report {
    crate::run(&Plan {
        round: Duration::from_millis(100),
        patience: Duration::from_secs(8),
        plant,
        ..crate::plan(&[StoreKind::Memory])
    })
}

#[test]
fn leaked_tasks_are_found() {
    let report = planted(Plant::Tasks);
    assert!(report.broken(Rule::Tasks) > 0, "{report}");
    assert_eq!(
        report.violations.len(),
        report.broken(Rule::Tasks),
        "{report}"
    );
}

#[test]
fn an_execution_that_never_ends_is_found() {
    let report = planted(Plant::Execution);
    assert!(report.broken(Rule::NotIdle) > 0, "{report}");
}

#[test]
fn a_key_that_stays_blocked_without_a_recorded_reason_is_found() {
    let report = planted(Plant::Loss);
    assert_eq!(report.broken(Rule::Blocked), 1, "{report}");
    assert_eq!(report.violations.len(), 1, "{report}");
}
