//! Stores that are wrong in one line each. The conformance suite must fail, and in the right case.
//!
//! Most of these flaws have been shipped in some library; the others break a sentence of the contract that no other test
//! would defend.

use std::panic::catch_unwind;

use idempotent_runtime::store::conformance::{Case, cases};

pub(crate) use store::{BrokenHarness, with_flaw};

mod list;
mod row;
mod steps;
mod store;

/// Makes one test per flaw: a store that has it fails these cases.
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
    /// No write compares the token.
    writes_without_a_fence: NoFence fails
        a_renewal_with_another_token_is_fenced,
        a_completion_with_another_token_is_fenced,
        a_release_with_another_token_is_fenced,
        an_abandon_with_another_token_is_fenced,
        a_take_over_fences_every_write_of_the_old_token;
    /// A completion compares only the key.
    completion_by_key_alone: CompleteByKey fails
        a_completion_with_another_token_is_fenced,
        a_late_completion_after_a_take_over_is_fenced,
        a_late_completion_and_a_take_over_exclude_each_other;
    /// Reads, lets others run, then inserts.
    check_then_act: CheckThenAct fails
        a_new_key_has_one_winner;
    /// An acquire whose future is dropped releases the key, even if another request holds it by then.
    release_when_the_acquire_is_dropped: ReleaseOnDrop fails
        an_acquire_dropped_half_way_frees_no_lease;
    /// Each process uses its own clock, and that of the second one is ahead.
    one_clock_per_process: OwnClock fails
        a_second_handle_sees_the_same_records_at_the_same_time;
    /// The clock of this store stands still, as if the process cached the time.
    a_clock_that_stands_still: StandingClock fails
        a_lapsed_lease_is_taken_over_as_the_next_attempt,
        an_expired_outcome_is_absent,
        get_hides_what_expired;
    /// Attempts count from zero.
    attempts_from_zero: CountsFromZero fails
        a_new_key_is_acquired_as_the_first_attempt;
    /// A take-over starts counting from one again.
    attempts_that_start_again: ForgetsAttempt fails
        attempts_rise_by_one_with_every_lease,
        a_take_over_has_one_winner;
    /// A take-over keeps the old token.
    a_take_over_that_keeps_the_token: KeepsToken fails
        a_take_over_fences_every_write_of_the_old_token,
        a_token_that_was_fenced_out_acquires_nothing;
    /// A purge deletes every record that is not completed.
    a_purge_of_live_leases: PurgesLive fails
        a_purge_takes_nothing_before_its_time,
        a_purge_takes_nothing_from_running_executions;
    /// A purge deletes records whose lease has lapsed.
    a_purge_of_lapsed_leases: PurgesLapsed fails
        a_purge_takes_nothing_before_its_time;
    /// A purge ignores its limit.
    a_purge_without_a_limit: PurgesAll fails
        a_purge_honours_its_limit;
    /// A purge deletes nothing.
    a_purge_that_does_nothing: PurgesNothing fails
        a_purge_deletes_what_expired;
    /// A purge returns a count and deletes nothing.
    a_purge_that_only_counts: PurgeOnlyCounts fails
        a_purge_honours_its_limit;
    /// The second acquire with one token is answered as a conflict.
    a_repeated_acquire_that_conflicts: RepeatConflicts fails
        a_repeated_acquire_is_acquired_with_the_same_attempt,
        repetitions_of_one_acquire_share_its_lease;
    /// An acquire whose reply was lost is repeated by the store itself.
    a_lost_reply_that_is_hidden: HidesLostReply fails
        an_acquire_whose_reply_was_lost_is_an_error_and_is_repeated_by_its_caller;
    /// The second acquire with one token counts as another attempt.
    a_repeated_acquire_that_counts: RepeatCounts fails
        a_repeated_acquire_is_acquired_with_the_same_attempt,
        repetitions_of_one_acquire_share_its_lease;
    /// The second acquire with one token does not renew.
    a_repeated_acquire_that_does_not_renew: RepeatKeepsLease fails
        a_repeated_acquire_renews_the_lease;
    /// The second acquire with one token reopens the record that was completed meanwhile.
    a_repeated_acquire_that_reopens: RepeatReopens fails
        a_repeated_acquire_after_the_completion_gets_the_outcome;
    /// The second completion with one token and outcome is fenced.
    a_repeated_completion_that_is_fenced: RepeatFenced fails
        a_repeated_completion_is_applied_and_changes_nothing;
    /// The second completion with one token and outcome prolongs the ttl.
    a_repeated_completion_that_prolongs: RepeatProlongs fails
        a_repeated_completion_is_applied_and_changes_nothing;
    /// The last outcome wins.
    a_second_outcome_that_overwrites: Overwrites fails
        a_second_outcome_is_fenced,
        one_of_many_outcomes_is_stored;
    /// The first outcome wins, but the completion with the second one is answered as applied.
    a_second_outcome_that_seems_stored: SeemsStored fails
        a_second_outcome_is_fenced,
        one_of_many_outcomes_is_stored;
    /// A full store evicts its oldest record, even in flight.
    an_eviction_of_records_in_flight: EvictsOldest fails
        other_records_push_nothing_out;
    /// A completion creates the record if it is missing.
    a_completion_that_creates: Creates fails
        a_write_to_a_missing_record_makes_none,
        a_released_record_is_missing;
    /// A completion is fenced by time: a late one is refused.
    a_completion_fenced_by_time: FencedByTime fails
        a_late_completion_by_the_current_token_is_applied,
        an_abandoned_execution_may_still_complete;
    /// A renewal is fenced by time: a late one is refused.
    a_renewal_fenced_by_time: RenewFencedByTime fails
        a_late_renewal_by_the_current_token_is_applied;
    /// The ttl counts from the acquire.
    a_ttl_from_the_acquire: TtlFromAcquire fails
        the_ttl_counts_from_the_completion;
    /// Each replay prolongs the ttl.
    a_sliding_ttl: Slides fails
        a_replay_does_not_extend_the_expiry;
    /// `get` renews the lease.
    a_get_that_renews: GetRenews fails
        get_changes_nothing;
    /// `get` shows expired records.
    a_get_of_expired_records: GetShowsExpired fails
        get_hides_what_expired;
    /// `get` hides a lapsed lease.
    a_get_without_lapsed_leases: GetHidesLapsed fails
        get_shows_a_lapsed_lease;
    /// A renewal leaves the expiry of the acquire.
    a_renewal_that_keeps_the_expiry: RenewKeepsExpiry fails
        a_renewal_pushes_the_expiry,
        every_acquire_pushes_the_expiry;
    /// A take-over leaves the expiry of the first acquire.
    a_take_over_that_keeps_the_expiry: TakeOverKeepsExpiry fails
        every_acquire_pushes_the_expiry;
    /// A renewal of an expired record is answered as applied and does nothing.
    a_renewal_that_skips_expired_records: RenewSkipsExpired fails
        a_renewal_after_the_expiry_is_applied_or_missing;
    /// A renewal is answered as applied and does nothing.
    a_renewal_that_does_nothing: RenewsNothing fails
        a_renewal_extends_the_lease;
    /// A renewal does not check whether the record is completed.
    a_renewal_of_completed_records: RenewsCompleted fails
        a_completed_record_is_not_renewed;
    /// A release does not check whether the record is completed.
    a_release_of_completed_records: ReleasesCompleted fails
        a_completed_record_is_not_released;
    /// An abandon does not check whether the record is completed.
    an_abandon_of_completed_records: AbandonsCompleted fails
        a_completed_record_is_not_abandoned;
    /// An abandon deletes the record.
    an_abandon_that_deletes: AbandonDeletes fails
        an_abandoned_lease_has_lapsed;
    /// An abandon leaves the lease to lapse by itself.
    an_abandon_that_does_nothing: AbandonsNothing fails
        an_abandoned_lease_has_lapsed;
    /// A release keeps the record, with a lapsed lease.
    a_release_that_abandons: ReleaseAbandons fails
        a_released_key_is_new,
        a_late_release_by_the_current_token_is_applied;
    /// A live lease is answered before the fingerprint is compared.
    a_conflict_before_the_mismatch: ConflictFirst fails
        another_fingerprint_is_a_mismatch_in_every_state;
    /// The fingerprint is not compared.
    no_comparison_of_fingerprints: NoFingerprint fails
        another_fingerprint_is_a_mismatch_in_every_state;
    /// An expired record is still compared by its fingerprint.
    a_mismatch_with_an_expired_record: ExpiredMismatch fails
        an_expired_outcome_is_absent;
    /// Any claim takes over a lapsed lease.
    a_take_over_that_was_not_requested: TakesOverAlways fails
        a_lapsed_lease_is_unknown_to_a_claim_that_does_not_take_over,
        an_unknown_outcome_has_no_winner;
    /// A claim takes over any lapsed lease, whichever lease it names.
    a_take_over_of_any_lease: TakesOverAny fails
        a_take_over_applies_to_no_other_lease;
    /// The lease is compared with the one that the claim names, others run, then it is taken over.
    a_take_over_after_a_comparison: TakesOverLate fails
        a_take_over_has_one_winner,
        a_late_completion_and_a_take_over_exclude_each_other;
    /// A claim takes over the lease that it names, also while that is live.
    a_take_over_of_live_leases: TakesOverLive fails
        a_live_lease_is_not_taken_over,
        a_repeated_acquire_renews_the_lease,
        a_late_repetition_of_the_acquire_keeps_the_attempt;
    /// The answer names the token of the claim instead of that of the lease.
    a_lease_that_is_named_after_the_claim: NamesTheClaim fails
        a_live_lease_is_answered_with_the_time_left,
        a_lapsed_lease_is_unknown_to_a_claim_that_does_not_take_over,
        a_take_over_applies_to_no_other_lease;
    /// A claim takes over a completed record once its lease would have lapsed.
    a_take_over_of_completed_records: TakesOverCompleted fails
        a_completed_record_is_answered_with_its_outcome,
        a_tombstone_is_answered_as_a_tombstone;
    /// An unknown outcome never expires.
    an_unknown_outcome_that_never_expires: UnknownNeverExpires fails
        an_unknown_outcome_expires_after_lease_and_ttl;
    /// An unknown outcome expires with the lease.
    an_unknown_outcome_that_expires_with_the_lease: UnknownExpiresWithLease fails
        a_lapsed_lease_is_unknown_to_a_claim_that_does_not_take_over,
        an_unknown_outcome_expires_after_lease_and_ttl;
    /// Only half of the key is compared.
    half_a_key: HalfAKey fails
        keys_that_differ_in_one_byte_are_different_records;
    /// One execution at a time, for all keys together.
    one_lease_for_all: OneForAll fails
        different_keys_do_not_contend;
    /// An unreadable record is treated as absent.
    an_unreadable_record_that_is_absent: DropsUnreadable fails
        an_unreadable_record_is_an_error_and_no_lease;
    /// A tombstone is replayed as an empty response.
    a_tombstone_that_is_a_response: TombstoneIsEmpty fails
        a_tombstone_is_answered_as_a_tombstone;
    /// Only the first 64 KiB of a response are stored.
    a_truncated_response: Truncates fails
        an_outcome_is_kept_byte_for_byte;
    /// The trace id stays that of the first lease.
    a_trace_id_of_the_first_lease: KeepsTraceId fails
        the_trace_id_of_the_newest_lease_is_kept;
    /// The time left is always the whole lease.
    a_lease_that_never_shrinks: WholeLease fails
        a_live_lease_is_answered_with_the_time_left,
        get_shows_the_record;
    /// `get` of another process does not see what was acknowledged just now.
    a_get_from_a_replica: GetLagsBehind fails
        get_sees_what_another_handle_was_told;
    /// The mode of the claim is not kept.
    a_mode_that_is_forgotten: ForgetsMode fails
        a_record_keeps_what_its_claim_was_for;
    /// A take-over sets the time of the creation.
    a_take_over_that_creates: TakeOverCreates fails
        a_record_keeps_what_its_claim_was_for;
    /// A page begins after a number of records, whatever came or went before it.
    pages_by_number: PagesByNumber fails
        pages_show_each_record_that_stays_exactly_once;
    /// A list shows what has expired.
    a_list_of_expired_records: ListsExpired fails
        a_list_hides_what_expired;
    /// A page looks at all records until it is full.
    a_list_that_scans_on: ScansAll fails
        a_filter_that_matches_nothing_gets_pages_with_an_end;
    /// An empty page is taken for the last one.
    a_list_that_ends_at_an_empty_page: EndsAtAnEmptyPage fails
        a_filter_that_matches_nothing_gets_pages_with_an_end;
    /// A text that is no cursor begins again.
    any_text_as_a_cursor: AnyCursor fails
        a_text_that_is_no_cursor_is_refused;
    /// A lapsed lease is listed as one with no time left.
    a_list_without_unknown_outcomes: ListsNoUnknown fails
        a_list_shows_each_record_in_its_state,
        a_list_of_one_state_shows_no_other,
        counts_of_pages_add_up;
    /// An endpoint matches all that begin with it.
    endpoints_by_their_beginning: EndpointsByTheirBeginning fails
        a_list_of_one_endpoint_shows_no_other;
    /// The age of a completed record counts from its completion.
    an_age_since_the_completion: AgeSinceCompletion fails
        a_list_of_what_is_old_shows_nothing_younger;
    /// Of the digits of a prefix only two bytes count.
    a_prefix_by_whole_bytes: PrefixByWholeBytes fails
        a_record_is_found_by_its_first_digits;
    /// Counts end with their first page.
    counts_of_one_page: CountsOnePage fails
        counts_of_pages_add_up;
    /// A list reads the responses of what it lists.
    a_list_that_reads_responses: ListReadsResponses fails
        a_damaged_response_is_listed;
    /// The store has no log of steps, although its harness says so.
    a_log_that_is_not_there: HidesSteps fails
        a_log_is_read_as_it_was_appended;
    /// Steps are appended and read whatever the token.
    steps_without_a_fence: StepsWithoutFence fails
        another_token_neither_reads_nor_appends,
        a_take_over_keeps_the_log,
        a_late_append_and_a_take_over_exclude_each_other;
    /// A repeated append is appended again.
    a_repeated_step_that_is_appended_again: StepsTwice fails
        a_repeated_append_is_applied_and_changes_nothing,
        repetitions_of_one_append_are_one;
    /// An append overwrites what is behind its position.
    a_step_that_overwrites: StepsOverwrite fails
        an_append_elsewhere_is_fenced;
    /// A completed record still has its log.
    steps_that_outlive_the_completion: StepsOutliveCompletion fails
        a_completed_record_has_no_log;
    /// A record that expired is claimed with its old log.
    steps_that_outlive_the_expiry: StepsOutliveExpiry fails
        an_expired_record_begins_without_steps;
    /// A take-over begins with an empty log.
    a_take_over_that_forgets_the_steps: TakeOverForgetsSteps fails
        a_take_over_keeps_the_log;
    /// An append after the lease has lapsed is refused.
    steps_fenced_by_time: StepsFencedByTime fails
        other_operations_keep_the_log;
    /// The log is cut at 64 KiB.
    a_log_that_is_cut: TruncatesSteps fails
        a_log_may_have_the_largest_size;
}

/// The store that the flaws are added to is correct.
#[test]
fn the_store_without_a_flaw_passes() {
    for case in cases::<BrokenHarness>() {
        with_flaw(Flaw::Nothing, || case.run());
    }
}

/// Each of these cases fails on a store with this flaw. A race may need a few runs to fail.
fn must_fail(flaw: Flaw, expected: &[&str]) {
    let cases = cases::<BrokenHarness>();
    for name in expected {
        let case = cases
            .iter()
            .find(|case| case.name() == *name)
            .expect("a case of this name");
        assert!(
            (0..20).any(|_| !passes(flaw, *case)),
            "{name} does not detect it"
        );
    }
}

fn passes(flaw: Flaw, case: Case) -> bool {
    with_flaw(flaw, || catch_unwind(|| case.run()).is_ok())
}
