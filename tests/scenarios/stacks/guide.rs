//! The guide's table *Which layer goes where*: each of its rows is tested, and nothing else is.

use super::{combinations, positions, readiness, sides, time_outs};

const GUIDE: &str = include_str!("../../../idempotent-runtime/src/guide/layers.md");

type Test = fn();

/// Each row by its first cell, and the tests of what it says.
const ROWS: &[(&str, &[Test])] = &[
    (
        "the engine itself, for the attribute: `.layer(idempotency)`",
        &[
            positions::an_engine_as_a_layer_is_the_engine_of_annotated_handlers,
            positions::an_engine_as_a_layer_protects_nothing_that_is_not_annotated,
        ],
    ),
    (
        "authentication, authorization",
        &[
            combinations::authentication,
            sides::authentication_outside_refuses_replays_and_names_the_caller,
            sides::authentication_inside_does_not_see_replays,
        ],
    ),
    (
        "time-outs",
        &[
            combinations::time_outs,
            time_outs::a_time_out_outside_does_not_end_the_execution,
            time_outs::a_time_out_inside_is_an_outcome_and_never_leads_to_a_second_start,
            time_outs::a_service_that_is_cut_off_without_an_answer_leaves_its_outcome_unknown,
        ],
    ),
    (
        "concurrency limits",
        &[
            combinations::concurrency_limits,
            readiness::duplicates_take_no_permit_and_replays_need_none,
            sides::a_limit_outside_keeps_a_permit_for_each_waiter,
        ],
    ),
    (
        "load shedding",
        &[
            combinations::load_shedding,
            readiness::a_shed_request_releases_its_key,
            readiness::a_status_made_of_shedding_inside_is_released_where_the_route_says_so,
            readiness::load_shedding_outside_refuses_before_any_key_is_touched,
        ],
    ),
    (
        "buffers",
        &[
            combinations::buffers,
            readiness::one_service_may_serve_covered_requests_and_others_in_turn,
        ],
    ),
    (
        "rate limits",
        &[sides::rate_limits_outside_touch_no_key_and_inside_release_it],
    ),
    (
        "handlers of errors (`HandleErrorLayer`)",
        &[
            combinations::errors_that_are_handled_outside,
            readiness::only_errors_that_come_before_any_work_release_the_key,
        ],
    ),
    (
        "retries of a service (`tower::retry`)",
        &[sides::retries_of_a_service_outside_are_replays_and_inside_further_calls],
    ),
    (
        "panic catchers",
        &[
            combinations::panic_catchers,
            sides::panic_catchers_outside_leave_panics_to_the_engine,
        ],
    ),
    (
        "limits on request bodies",
        &[
            combinations::limits_on_request_bodies,
            sides::limits_on_request_bodies_claim_nothing_outside,
        ],
    ),
    (
        "decompression of requests",
        &[
            combinations::decompression_of_requests,
            sides::decompression_of_requests_outside_compares_what_was_compressed,
        ],
    ),
    (
        "compression of responses",
        &[
            combinations::compression,
            sides::compression_of_responses_outside_suits_each_client,
        ],
    ),
    (
        "CORS",
        &[
            combinations::cors,
            sides::cors_outside_answers_each_origin_and_preflights,
        ],
    ),
    (
        "request ids, tracing",
        &[
            combinations::request_ids,
            combinations::tracing,
            sides::request_ids_outside_are_each_requests_own,
        ],
    ),
    (
        "sessions, cookies",
        &[sides::cookies_set_outside_reach_replays_too],
    ),
    (
        "headers that are the same for each response (HSTS, versions)",
        &[
            combinations::headers,
            sides::headers_set_outside_are_those_of_today,
        ],
    ),
    (
        "middleware functions (`from_fn`), extensions",
        &[
            combinations::middleware_functions,
            combinations::extensions,
            sides::an_extension_of_another_layer_reaches_the_handler,
        ],
    ),
    (
        "metrics, logs",
        &[sides::counters_outside_count_requests_and_inside_executions],
    ),
    (
        "rewriting of paths, `NormalizePath`",
        &[sides::paths_are_rewritten_around_the_whole_router],
    ),
    (
        "websockets, upgrades",
        &[sides::a_switch_of_protocols_is_not_replayed],
    ),
    (
        "rewriting of problem answers into the service's own format",
        &[sides::problems_are_rewritten_outside],
    ),
];

#[test]
fn the_guides_table_has_the_rows_that_are_tested() {
    let table = GUIDE
        .split("# The table")
        .nth(1)
        .and_then(|rest| rest.split("\n# ").next())
        .expect("the guide has the table");
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    let named: Vec<_> = rows
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 3, "{row}");
            assert!(cells.iter().all(|cell| !cell.is_empty()), "{row}");
            cells[0]
        })
        .collect();
    let tested: Vec<_> = ROWS.iter().map(|(row, _)| *row).collect();
    assert_eq!(named, tested);
    assert!(ROWS.iter().all(|(_, tests)| !tests.is_empty()));
}
