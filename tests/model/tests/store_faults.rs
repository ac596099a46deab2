//! A store that breaks the contract breaks an invariant.

use idempotent_model::{Check, Invariant, Policy, StoreFault};

/// Checks that this fault of the store breaks this invariant first.
fn caught(fault: StoreFault, invariant: Invariant, check: Check) {
    check.store_fault(fault).breaks(invariant);
}

#[test]
fn a_release_that_ignores_the_token() {
    let check = Check::new(Policy::Retry);
    caught(
        StoreFault::ReleaseIgnoresTheToken,
        Invariant::StaleTokenChangesNothing,
        check,
    );
}

#[test]
fn a_complete_that_ignores_the_token() {
    let check = Check::new(Policy::Retry);
    caught(
        StoreFault::CompleteIgnoresTheToken,
        Invariant::StaleTokenChangesNothing,
        check,
    );
}

#[test]
fn a_renewal_that_ignores_the_token() {
    let check = Check::new(Policy::Retry).faults(1);
    caught(
        StoreFault::RenewIgnoresTheToken,
        Invariant::StaleTokenChangesNothing,
        check,
    );
}

#[test]
fn an_abandon_that_ignores_the_token() {
    let check = Check::new(Policy::Retry);
    caught(
        StoreFault::AbandonIgnoresTheToken,
        Invariant::StaleTokenChangesNothing,
        check,
    );
}

#[test]
fn a_late_renewal_that_reopens_a_completed_record() {
    let check = Check::new(Policy::Refuse).faults(1);
    caught(
        StoreFault::RenewReopensTheRecord,
        Invariant::CompletedStaysCompleted,
        check,
    );
}

#[test]
fn a_late_completion_that_is_refused() {
    let check = Check::new(Policy::Refuse);
    caught(
        StoreFault::LateCompleteIsRefused,
        Invariant::LateCompletionSucceeds,
        check,
    );
}

#[test]
fn a_fenced_completion_that_is_acknowledged() {
    let check = Check::new(Policy::Retry);
    caught(
        StoreFault::FencedCompleteIsAcknowledged,
        Invariant::CompletionStays,
        check,
    );
}

#[test]
fn an_acquire_that_checks_first_and_acts_later() {
    let check = Check::new(Policy::Refuse);
    caught(StoreFault::CheckThenAct, Invariant::OneCurrentToken, check);
}

#[test]
fn a_lease_that_lapses_early() {
    let check = Check::new(Policy::Retry);
    caught(
        StoreFault::LeaseLapsesEarly,
        Invariant::OneCurrentToken,
        check,
    );
}

#[test]
fn a_take_over_that_keeps_the_attempt() {
    let check = Check::new(Policy::Retry);
    caught(
        StoreFault::TakeOverKeepsTheAttempt,
        Invariant::AttemptsRise,
        check,
    );
}

#[test]
fn a_purge_of_live_leases() {
    let check = Check::new(Policy::Refuse);
    caught(
        StoreFault::PurgesLiveLeases,
        Invariant::LiveLeaseIsKept,
        check,
    );
}

#[test]
fn an_eviction_of_completed_records() {
    let check = Check::new(Policy::Refuse);
    caught(
        StoreFault::EvictsCompletedRecords,
        Invariant::CompletionStays,
        check,
    );
}

#[test]
fn payloads_that_are_not_compared() {
    let check = Check::new(Policy::Refuse).other_payload();
    caught(
        StoreFault::PayloadIsNotCompared,
        Invariant::OutcomesStayWithTheirPayload,
        check,
    );
}

#[test]
fn a_repetition_that_is_a_conflict() {
    Check::new(Policy::Refuse)
        .faults(1)
        .store_fault(StoreFault::RepetitionIsAConflict)
        .gets_stuck(Invariant::AnswerWithinReach);
}

/// The engine does not know that a copy is in doubt. A store reports such a repetition, or does not make it.
#[test]
fn an_acquire_that_is_sent_twice_unknown_to_the_engine() {
    let check = Check::new(Policy::Refuse);
    caught(
        StoreFault::AcquireIsSentTwice,
        Invariant::NoKeyBlocked,
        check,
    );
}
