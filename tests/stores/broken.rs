//! Stores that are wrong by one line each. The conformance suite must tell, and by the right case.
//!
//! Most of these flaws have been shipped by somebody; the others are what the contract's sentences would be
//! worth if nobody checked them.

use std::panic::catch_unwind;

use idempotent_runtime::store::conformance::{Case, cases};

pub(crate) use store::{BrokenHarness, with_flaw};

mod row;
mod store;

/// One test per flaw: the store with it fails these cases.
macro_rules! broken {
    ($($(#[$why:meta])* $test:ident: $flaw:ident fails $($case:ident),+;)*) => {
        /// What is wrong with the store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Flaw {
            Nothing,
            $($(#[$why])* $flaw,)*
        }

        $(
            #[test]
            fn $test() {
                must_fail(Flaw::$flaw, &[$(stringify!($case)),+]);
            }
        )*
    };
}

broken! {
    /// No write looks at the token.
    writes_without_a_fence: NoFence fails
        a_renewal_with_another_token_is_fenced,
        a_completion_with_another_token_is_fenced,
        a_release_with_another_token_is_fenced,
        an_abandon_with_another_token_is_fenced,
        a_take_over_fences_every_write_of_the_old_token;
    /// Completion goes by the key alone.
    completion_by_key_alone: CompleteByKey fails
        a_completion_with_another_token_is_fenced,
        a_late_completion_after_a_take_over_is_fenced,
        a_late_completion_and_a_take_over_exclude_each_other;
    /// Looks, lets others run, then inserts.
    check_then_act: CheckThenAct fails
        a_new_key_has_one_winner;
    /// An acquire whose future is dropped gives the key back, whoever holds it by then.
    release_when_the_acquire_is_dropped: ReleaseOnDrop fails
        an_acquire_dropped_half_way_frees_no_lease;
    /// Each process goes by its own clock, and the second one's is ahead.
    one_clock_per_process: OwnClock fails
        a_second_handle_sees_the_same_records_at_the_same_time;
    /// A clock that stands still for this store, as one cached by the process would.
    a_clock_that_stands: StandingClock fails
        a_lapsed_lease_is_taken_over_as_the_next_attempt,
        an_expired_outcome_is_absent,
        get_hides_what_expired;
    /// Attempts count from zero.
    attempts_from_zero: CountsFromZero fails
        a_new_key_is_acquired_as_the_first_attempt;
    /// A take-over starts counting again.
    attempts_that_start_again: ForgetsAttempt fails
        attempts_rise_by_one_with_every_lease,
        a_take_over_has_one_winner;
    /// A take-over keeps the old token.
    a_take_over_that_keeps_the_token: KeepsToken fails
        a_take_over_fences_every_write_of_the_old_token,
        a_token_that_was_fenced_out_acquires_nothing;
    /// Purges whatever was not completed.
    a_purge_of_live_leases: PurgesLive fails
        a_purge_takes_nothing_before_its_time,
        a_purge_takes_nothing_from_running_executions;
    /// Purges as soon as a lease has lapsed.
    a_purge_of_lapsed_leases: PurgesLapsed fails
        a_purge_takes_nothing_before_its_time;
    /// Purges all there is, whatever the limit.
    a_purge_without_a_limit: PurgesAll fails
        a_purge_honours_its_limit;
    /// Never purges.
    a_purge_that_does_nothing: PurgesNothing fails
        a_purge_deletes_what_expired;
    /// Says that it purged, and did not.
    a_purge_that_only_counts: PurgesInName fails
        a_purge_honours_its_limit;
    /// The second acquire with one token meets its own lease.
    a_repeated_acquire_that_conflicts: RepeatConflicts fails
        a_repeated_acquire_is_acquired_with_the_same_attempt,
        repetitions_of_one_acquire_share_its_lease;
    /// The second acquire with one token is another attempt.
    a_repeated_acquire_that_counts: RepeatCounts fails
        a_repeated_acquire_is_acquired_with_the_same_attempt,
        repetitions_of_one_acquire_share_its_lease;
    /// The second acquire with one token does not renew.
    a_repeated_acquire_that_does_not_renew: RepeatKeepsLease fails
        a_repeated_acquire_renews_the_lease;
    /// The second acquire with one token opens the record that was completed meanwhile.
    a_repeated_acquire_that_opens_again: RepeatOpens fails
        a_repeated_acquire_after_the_completion_gets_the_outcome;
    /// The second completion with one token and outcome is fenced.
    a_repeated_completion_that_is_fenced: RepeatFenced fails
        a_repeated_completion_is_applied_and_changes_nothing;
    /// The second completion prolongs the retention.
    a_repeated_completion_that_prolongs: RepeatProlongs fails
        a_repeated_completion_is_applied_and_changes_nothing;
    /// The last outcome wins.
    a_second_outcome_that_overwrites: Overwrites fails
        a_second_outcome_is_fenced,
        one_of_many_outcomes_is_stored;
    /// The first outcome wins, but the second author is told that his is stored.
    a_second_outcome_that_seems_stored: SeemsStored fails
        a_second_outcome_is_fenced,
        one_of_many_outcomes_is_stored;
    /// Makes room by dropping the oldest record, in flight or not.
    an_eviction_of_what_is_in_flight: EvictsOldest fails
        other_records_push_nothing_out;
    /// A completion makes the record if there is none.
    a_completion_that_creates: Creates fails
        a_write_to_a_missing_record_makes_none,
        a_released_record_is_missing;
    /// The fence is the time: late completions are refused.
    a_completion_fenced_by_time: FencedByTime fails
        a_late_completion_by_the_current_token_is_applied,
        an_abandoned_execution_may_still_complete;
    /// The fence is the time: late renewals are refused.
    a_renewal_fenced_by_time: RenewFencedByTime fails
        a_late_renewal_by_the_current_token_is_applied;
    /// The retention counts from the acquire.
    a_retention_from_the_acquire: TtlFromAcquire fails
        the_ttl_counts_from_the_completion;
    /// Each replay prolongs the retention.
    a_retention_that_slides: Slides fails
        a_replay_does_not_extend_the_expiry;
    /// Inspection renews what it shows.
    an_inspection_that_renews: GetRenews fails
        get_changes_nothing;
    /// Inspection shows what has expired.
    an_inspection_of_the_dead: GetShowsExpired fails
        get_hides_what_expired;
    /// Inspection hides a lapsed lease.
    an_inspection_without_the_lapsed: GetHidesLapsed fails
        get_shows_a_lapsed_lease;
    /// Renewal leaves the expiry where the acquire put it.
    a_renewal_without_expiry: RenewKeepsExpiry fails
        a_renewal_pushes_the_expiry,
        every_acquire_pushes_the_expiry;
    /// A take-over leaves the expiry where the first acquire put it.
    a_take_over_without_expiry: TakeKeepsExpiry fails
        every_acquire_pushes_the_expiry;
    /// A late renewal of an expired record says yes and does nothing.
    a_renewal_of_the_expired_in_name: RenewsNoExpired fails
        a_renewal_after_the_expiry_is_applied_or_missing;
    /// Renewal says yes and does nothing.
    a_renewal_in_name: RenewsNothing fails
        a_renewal_extends_the_lease;
    /// Renewal does not look whether the outcome is stored.
    a_renewal_of_the_completed: RenewsCompleted fails
        a_completed_record_is_not_renewed;
    /// Release does not look whether the outcome is stored.
    a_release_of_the_completed: ReleasesCompleted fails
        a_completed_record_is_not_released;
    /// Abandon does not look whether the outcome is stored.
    an_abandon_of_the_completed: AbandonsCompleted fails
        a_completed_record_is_not_abandoned;
    /// Abandon deletes.
    an_abandon_that_frees: AbandonFrees fails
        an_abandoned_lease_has_lapsed;
    /// Abandon waits for the lease to lapse.
    an_abandon_in_name: AbandonsNothing fails
        an_abandoned_lease_has_lapsed;
    /// A record that was released is still there, lapsed.
    a_release_that_abandons: ReleaseAbandons fails
        a_released_key_is_new,
        a_late_release_by_the_current_token_is_applied;
    /// A live lease is answered before the fingerprint is looked at.
    a_conflict_before_the_mismatch: ConflictFirst fails
        another_fingerprint_is_a_mismatch_in_every_state;
    /// The fingerprint is not looked at.
    a_fingerprint_nobody_looks_at: NoFingerprint fails
        another_fingerprint_is_a_mismatch_in_every_state;
    /// An expired record still asks for its own fingerprint.
    a_mismatch_with_the_expired: ExpiredMismatch fails
        an_expired_outcome_is_absent;
    /// Lapsed leases are taken over by whoever comes.
    a_take_over_nobody_asked_for: TakesOverAlways fails
        a_lapsed_lease_is_unknown_to_a_claim_that_does_not_take_over,
        an_unknown_outcome_has_no_winner;
    /// Takes over from the living.
    a_take_over_of_live_leases: TakesOverLive fails
        a_live_lease_is_not_taken_over,
        a_take_over_has_one_winner;
    /// Takes over what is completed, once the lease would have lapsed.
    a_take_over_of_the_completed: TakesOverCompleted fails
        a_completed_record_is_answered_with_its_outcome,
        a_tombstone_is_answered_as_a_tombstone;
    /// An unknown outcome is never forgotten.
    an_unknown_outcome_for_ever: UnknownForEver fails
        an_unknown_outcome_expires_after_lease_and_ttl;
    /// An unknown outcome is forgotten with the lease.
    an_unknown_outcome_forgotten: UnknownForgotten fails
        a_lapsed_lease_is_unknown_to_a_claim_that_does_not_take_over,
        an_unknown_outcome_expires_after_lease_and_ttl;
    /// Half of the key is enough.
    half_a_key: HalfAKey fails
        keys_that_differ_in_one_byte_are_different_records;
    /// One execution at a time, whatever its key.
    one_lease_for_all: OneForAll fails
        different_keys_do_not_contend;
    /// What cannot be read is as good as not there.
    an_unreadable_record_that_is_forgotten: ForgetsUnreadable fails
        an_unreadable_record_is_an_error_and_no_lease;
    /// A tombstone comes back as an empty response.
    a_tombstone_that_is_a_response: TombstoneIsEmpty fails
        a_tombstone_is_answered_as_a_tombstone;
    /// Only the first 64 KiB are kept.
    an_outcome_cut_short: CutsShort fails
        an_outcome_is_kept_byte_for_byte;
    /// The trace id is the first lease's for ever.
    a_trace_id_of_the_first_lease: KeepsTrace fails
        the_trace_id_of_the_newest_lease_is_kept;
    /// The time left is the whole lease, always.
    a_lease_that_never_shrinks: WholeLease fails
        a_live_lease_is_answered_with_the_time_left,
        get_shows_the_record;
}

/// The store all others are made from is right.
#[test]
fn the_store_without_a_flaw_passes() {
    for case in cases::<BrokenHarness>() {
        with_flaw(Flaw::Nothing, || case.run());
    }
}

/// Fails unless each of these cases fails. A race may need a few runs until it shows.
fn must_fail(flaw: Flaw, expected: &[&str]) {
    let cases = cases::<BrokenHarness>();
    for name in expected {
        let case = cases
            .iter()
            .find(|case| case.name() == *name)
            .expect("a case of this name");
        assert!(
            (0..20).any(|_| !passes(flaw, *case)),
            "{name} does not tell"
        );
    }
}

fn passes(flaw: Flaw, case: Case) -> bool {
    with_flaw(flaw, || catch_unwind(|| case.run()).is_ok())
}
