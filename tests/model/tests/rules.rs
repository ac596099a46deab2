//! Each rule is needed: without it an invariant breaks, or somebody gets stuck.
//!
//! Every test takes one rule away, explores until something breaks, and says what that must be. The trace is printed
//! (`--nocapture` shows it).

use idempotent_model::{Check, Invariant, Policy, Rules};

/// One test for each rule, by the rule's name. A rule without a test does not compile.
macro_rules! each_rule_is_needed {
    ($($(#[$doc:meta])* $rule:ident: $check:expr, $verdict:ident($invariant:ident);)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $rule() {
                $check.without(|rules| rules.$rule = false).$verdict(Invariant::$invariant);
            }
        )*

        #[test]
        fn every_rule_has_a_test() {
            assert_eq!(Rules { $($rule: true),* }, Rules::all());
        }

        #[test]
        fn the_readme_lists_every_rule_with_what_breaks() {
            let readme = include_str!("../README.md");
            for row in [$(concat!("| `", stringify!($rule), "` | `", stringify!($invariant), "` |")),*] {
                assert!(readme.contains(row), "the table in README.md has no row with {row}");
            }
        }
    };
}

each_rule_is_needed! {
    /// The first acquire is late, its repetition is answered, the key is released, the first arrives: blocked.
    keep_doubt_after_repetition: refuse().faults(1), breaks(NoKeyBlocked);
    /// The acquire was applied and both its replies were lost.
    withdraw_after_store_error: refuse().faults(2), breaks(NoKeyBlocked);
    /// A waiter gives up with `conflict`; its late acquire arrives after the release by the other.
    withdraw_after_other_answers: refuse().faults(1), breaks(NoKeyBlocked);
    /// The record that was replayed expires before the late acquire arrives.
    withdraw_after_replay: refuse().faults(1), breaks(NoKeyBlocked);
    withdraw_after_release: refuse().faults(1), breaks(NoKeyBlocked);
    withdraw_after_client_left: refuse().faults(1).departures(1), breaks(NoKeyBlocked);
    withdraw_after_shutdown: refuse().faults(1).shutdowns(1), breaks(NoKeyBlocked);
    /// Two copies are late: the first withdrawal succeeds, the second copy arrives.
    withdraw_until_none_can_arrive: refuse().faults(2), breaks(NoKeyBlocked);
    /// A handler's 429 gives the key back, and both releases are lost.
    release_until_acknowledged: refuse().faults(2), breaks(NoKeyBlocked);
    acquire_belongs_to_engine: refuse().departures(1), breaks(NoKeyBlocked);

    start_only_when_acquired: refuse().faults(2), breaks(NoStartWithoutClaim);
    /// The reply is read after the record expired, and another request started meanwhile.
    start_within_one_lease: refuse(), breaks(OneStart);
    /// The recovery function takes longer than the lease, and another request starts meanwhile.
    recovery_starts_within_one_lease: recover().faults(1), breaks(AttemptsRise);
    /// A token may hold two leases, one after the other: a renewal does not say which of them it prolonged.
    renewal_does_not_prolong_the_start: recover().faults(2), breaks(AttemptsRise);

    /// An execution outlives its record; a duplicate in the same process acquires the key anew.
    own_process_follows: refuse().requests(2, 0), breaks(NoTakeOverFromItself);
    repetitions_follow_too: refuse().requests(2, 0).faults(1), breaks(NoTakeOverFromItself);
    follow_until_outcome_is_stored: refuse().requests(2, 0).faults(2), breaks(NoTakeOverFromItself);
    /// The acquire was sent before the execution began, and is answered when its lease has lapsed.
    own_execution_is_never_unknown: retry().requests(2, 1).lives(1).times(1, 2, 0), breaks(OwnExecutionIsKnown);
    /// A second line of defence: while the rules above hold, no acquire succeeds beside an execution.
    give_back_beside_own_execution: beside_itself(), breaks(OneStartPerProcess);
    /// A take-over is on its way while the request that made the token repeats its acquire and starts.
    never_take_over_own_token: retry().requests(2, 0).faults(1), breaks(NoTakeOverFromItself);
    /// After a panic the same process has to be able to retry.
    ended_tokens_may_be_taken_over: retry().requests(2, 0), gets_stuck(AnswerWithinReach);

    /// A take-over that was sent for a dead process's lease arrives when its own process's lease has lapsed.
    take_over_names_the_lease: retry().requests(2, 1).lives(1), breaks(NoTakeOverFromItself);
    /// A take-over answers 429 and deletes the record: the next attempt is 1 again.
    abandon_after_take_over: retry().requests(2, 1).lives(1), breaks(AttemptsRise);
    abandon_after_panic: retry(), breaks(NothingStartedIsReleased);

    /// The release was fenced by a take-over.
    release_gives_own_answer: retry(), breaks(ReleaseIsNotUnknown);
    answer_waits_for_acknowledgement: retry(), breaks(OneOutcome);
    fenced_complete_answers_with_winner: retry(), breaks(OneOutcome);
    duplicates_hear_the_doubt: refuse().requests(2, 0).faults(2), breaks(DoubtIsShared);

    unacknowledged_complete_keeps_claim: refuse().faults(2), breaks(NothingStartedIsReleased);
    late_outcomes_are_stored: refuse().requests(2, 0).faults(2), gets_stuck(OutcomeWithinReach);
    error_statuses_are_outcomes: refuse(), breaks(NothingStartedIsReleased);
    disconnect_keeps_claim: refuse().departures(1), breaks(NothingStartedIsReleased);
    shutdown_keeps_claim: refuse().shutdowns(1), breaks(NothingStartedIsReleased);

    /// The outcome is stored by the other process, which cannot notify this one.
    waiters_poll: refuse(), gets_stuck(AnswerWithinReach);
    waiters_have_a_deadline: refuse(), gets_stuck(WaitersReturn);
    /// The process of the first request died.
    lapsed_leases_are_taken_over: retry().crashes(1), gets_stuck(OutcomeWithinReach);
    refuse_never_executes_again: refuse(), breaks(OneStart);
}

fn refuse() -> Check {
    Check::new(Policy::Refuse)
}

fn retry() -> Check {
    Check::new(Policy::Retry)
}

fn recover() -> Check {
    Check::new(Policy::Recover)
}

/// A process whose duplicates do not follow its executions.
fn beside_itself() -> Check {
    let check = refuse()
        .requests(2, 0)
        .without(|rules| rules.own_process_follows = false);
    check.ignoring(Invariant::NoTakeOverFromItself)
}

#[test]
fn what_is_acquired_beside_an_execution_does_not_start() {
    beside_itself().holds();
}
