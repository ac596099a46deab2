//! The one list of cases, and the macros that use it.

use super::Rule;

/// Passes the list to another macro of this crate, after that macro's own arguments. Each item is how the case is run,
/// its module and its name.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_list {
    ($then:ident, $($given:tt)*) => {
        $crate::$then! { $($given)*;
            run acquire::a_new_key_is_acquired_as_the_first_attempt,
            run acquire::keys_that_differ_in_one_byte_are_different_records,
            run acquire::a_live_lease_is_answered_with_the_time_left,
            run acquire::a_live_lease_is_not_taken_over,
            run acquire::a_repeated_acquire_is_acquired_with_the_same_attempt,
            run acquire::a_repeated_acquire_renews_the_lease,
            run acquire::a_late_repetition_of_the_acquire_keeps_the_attempt,
            run acquire::a_repeated_acquire_after_the_completion_gets_the_outcome,
            run acquire::a_token_that_was_fenced_out_acquires_nothing,
            run acquire::another_fingerprint_is_a_mismatch_in_every_state,
            run acquire::a_completed_record_is_answered_with_its_outcome,
            run acquire::a_tombstone_is_answered_as_a_tombstone,
            run acquire::a_lapsed_lease_is_unknown_to_a_claim_that_does_not_take_over,
            run acquire::a_lapsed_lease_is_taken_over_as_the_next_attempt,
            run acquire::a_take_over_applies_to_no_other_lease,
            run acquire::attempts_rise_by_one_with_every_lease,
            run acquire::an_acquire_dropped_half_way_frees_no_lease,
            run acquire::an_acquire_whose_reply_was_lost_is_an_error_and_is_repeated_by_its_caller,
            run acquire::a_second_handle_sees_the_same_records_at_the_same_time,
            run lease::a_renewal_extends_the_lease,
            run lease::a_renewal_pushes_the_expiry,
            run lease::a_late_renewal_by_the_current_token_is_applied,
            run lease::a_completed_record_is_not_renewed,
            run lease::an_abandoned_lease_has_lapsed,
            run lease::a_repeated_abandon_is_applied,
            run lease::an_abandoned_execution_may_still_complete,
            run lease::a_completed_record_is_not_abandoned,
            run lease::a_renewal_with_another_token_is_fenced,
            run lease::a_completion_with_another_token_is_fenced,
            run lease::a_release_with_another_token_is_fenced,
            run lease::an_abandon_with_another_token_is_fenced,
            run lease::a_take_over_fences_every_write_of_the_old_token,
            run lease::a_write_to_a_missing_record_makes_none,
            run complete::an_outcome_is_kept_byte_for_byte,
            run complete::a_repeated_completion_is_applied_and_changes_nothing,
            run complete::a_second_outcome_is_fenced,
            run complete::a_late_completion_by_the_current_token_is_applied,
            run complete::a_late_completion_after_a_take_over_is_fenced,
            run complete::a_completion_after_the_expiry_is_applied_or_missing,
            run complete::the_trace_id_of_the_newest_lease_is_kept,
            run release::a_released_key_is_new,
            run release::a_released_record_is_missing,
            run release::a_repeated_release_does_not_free_the_next_lease,
            run release::a_late_release_by_the_current_token_is_applied,
            run release::a_completed_record_is_not_released,
            run expiry::the_ttl_counts_from_the_completion,
            run expiry::a_replay_does_not_extend_the_expiry,
            run expiry::an_expired_outcome_is_absent,
            run expiry::an_unknown_outcome_expires_after_lease_and_ttl,
            run expiry::every_acquire_pushes_the_expiry,
            run expiry::a_renewal_after_the_expiry_is_applied_or_missing,
            run expiry::the_owner_of_an_expired_record_is_fenced_by_the_next,
            run inspect::get_shows_the_record,
            run inspect::get_shows_a_lapsed_lease,
            run inspect::get_hides_what_expired,
            run inspect::get_changes_nothing,
            run inspect::get_sees_what_another_handle_was_told,
            run listing::a_list_shows_each_record_in_its_state,
            run listing::a_list_of_one_state_shows_no_other,
            run listing::a_list_of_one_endpoint_shows_no_other,
            run listing::a_list_of_what_is_old_shows_nothing_younger,
            run listing::a_list_hides_what_expired,
            run listing::pages_show_each_record_that_stays_exactly_once,
            run listing::a_filter_that_matches_nothing_gets_pages_with_an_end,
            run listing::a_text_that_is_no_cursor_is_refused,
            run listing::a_record_is_found_by_its_first_digits,
            run listing::counts_of_pages_add_up,
            run listing::a_record_keeps_what_its_claim_was_for,
            run listing::a_damaged_response_is_listed,
            run purge::a_purge_deletes_what_expired,
            run purge::a_purge_honours_its_limit,
            run purge::a_purge_takes_nothing_before_its_time,
            run purge::other_records_push_nothing_out,
            run administer::a_forgotten_record_is_absent,
            run administer::only_what_was_seen_is_forgotten,
            run administer::events_are_kept_newest_first,
            run administer::a_purge_keeps_the_events,
            run steps::a_log_is_read_as_it_was_appended,
            run steps::a_log_may_have_the_largest_size,
            run steps::a_repeated_append_is_applied_and_changes_nothing,
            run steps::an_append_elsewhere_is_fenced,
            run steps::another_token_neither_reads_nor_appends,
            run steps::a_take_over_keeps_the_log,
            run steps::other_operations_keep_the_log,
            run steps::a_completed_record_has_no_log,
            run steps::a_missing_record_has_no_log,
            run steps::a_released_record_takes_its_log_along,
            run steps::an_expired_record_begins_without_steps,
            run steps::a_second_handle_reads_the_same_log,
            run corrupt::an_unreadable_record_is_an_error_and_no_lease,
            race races::a_new_key_has_one_winner,
            race races::a_take_over_has_one_winner,
            race races::an_unknown_outcome_has_no_winner,
            race races::repetitions_of_one_acquire_share_its_lease,
            race races::different_keys_do_not_contend,
            race races::an_expiring_outcome_has_one_successor,
            race races::one_of_many_outcomes_is_stored,
            race races::a_late_completion_and_a_take_over_exclude_each_other,
            race races::a_late_renewal_and_a_take_over_exclude_each_other,
            race races::a_key_that_is_released_is_held_by_one_at_a_time,
            race races::a_purge_takes_nothing_from_running_executions,
            race races::a_purge_takes_nothing_from_the_next_lease,
            race steps::a_late_append_and_a_take_over_exclude_each_other,
            race steps::repetitions_of_one_append_are_one,
        }
    };
}

/// Writes one `#[test]` per case of the [conformance suite](crate::store::conformance) for this
/// [`Harness`](crate::store::conformance::Harness). Call it in a module of its own.
///
/// `store_conformance!(Harness, if installed())` runs a case only if the condition holds at that moment: for stores
/// that need a server, which may not be installed.
#[macro_export]
macro_rules! store_conformance {
    ($harness:ty) => {
        $crate::store_conformance! { $harness, if true }
    };
    ($harness:ty, if $condition:expr) => {
        $crate::__store_conformance_list! { __store_conformance_tests, $harness, $condition }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_tests {
    ($harness:ty, $condition:expr; $($run:ident $module:ident :: $case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                let condition: bool = $condition;
                if condition {
                    $crate::store::conformance::run::<$harness>(stringify!($case));
                }
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_rules {
    (; $($run:ident $module:ident :: $case:ident,)*) => {
        &[$(
            Rule::$run(stringify!($case), |subject| Box::pin(super::$module::$case(subject))),
        )*]
    };
}

pub(super) const RULES: &[Rule] = __store_conformance_list! { __store_conformance_rules, };
