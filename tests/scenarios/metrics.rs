//! Metrics as people run them: each event moves its number, and counters begin at zero.

use std::{collections::BTreeMap, time::Duration};

use http::{Response, StatusCode};
use idempotent_runtime::{
    Idempotency, IdempotencyKey, MemoryStore, OnCrash, Policy, Resolution, buckets,
    store::purger::Purger,
};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Operation, TestRequest, advance, crash, send,
    send_in_task, with_each_adapter, with_paused_clock,
};

const LEASE: Duration = Duration::from_secs(30);

/// The recorder that the guide recommends.
pub(super) fn exporter() -> (PrometheusRecorder, PrometheusHandle) {
    let mut builder = PrometheusBuilder::new();
    for (metric, bounds) in buckets::BY_METRIC {
        let matcher = Matcher::Full(metric.to_owned());
        builder = builder.set_buckets_for_metric(matcher, bounds).unwrap();
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    (recorder, handle)
}

/// Every series of a scrape with its value.
pub(super) fn scrape(handle: &PrometheusHandle) -> BTreeMap<String, f64> {
    let text = handle.render();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| line.rsplit_once(' '));
    series
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect()
}

#[track_caller]
fn assert_series(handle: &PrometheusHandle, expected: &[(&str, f64)]) {
    let seen = scrape(handle);
    for (series, value) in expected {
        assert_eq!(seen.get(*series), Some(value), "{series} in {seen:#?}");
    }
}

pub(super) fn engine(store: &MemoryStore, policy: Policy) -> Idempotency {
    let builder = Idempotency::builder().store(store.clone()).policy(policy);
    builder.build().unwrap()
}

/// A store in which the outcome of the payment `key` is unknown.
async fn leave_unknown(
    adapter: Adapter,
    store: &MemoryStore,
    handler: &CountingHandler,
    policy: &Policy,
    key: &str,
) {
    handler.close_gate();
    let builder = Idempotency::builder().policy(policy.clone());
    let payment = TestRequest::payment(key);
    crash(adapter, builder, store.clone(), &payment, handler).await;
    handler.open_gate();
    advance(LEASE + Duration::from_secs(1)).await;
}

#[test]
fn counters_begin_at_zero() {
    with_each_adapter(async |adapter| {
        let (recorder, handle) = exporter();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let engine = engine(&MemoryStore::new(), Policy::new());
        assert_series(
            &handle,
            &[
                (
                    r#"idempotency_store_failures_total{store="memory",kind="unavailable"}"#,
                    0.0,
                ),
                (
                    r#"idempotency_store_failures_total{store="memory",kind="full"}"#,
                    0.0,
                ),
                (
                    r#"idempotency_fenced_writes_total{store="memory",operation="complete"}"#,
                    0.0,
                ),
                (r#"idempotency_purged_records_total{store="memory"}"#, 0.0),
                (
                    r#"idempotency_resolutions_total{resolution="completed"}"#,
                    0.0,
                ),
                (
                    r#"idempotency_resolutions_total{resolution="not_executed"}"#,
                    0.0,
                ),
                ("idempotency_overdue_executions_total", 0.0),
                ("idempotency_in_flight", 0.0),
                ("idempotency_waiters", 0.0),
                ("idempotency_detached_executions", 0.0),
            ],
        );
        // The other outcomes of an endpoint begin with its first request.
        send(
            &adapter.app(&engine, &CountingHandler::new()),
            &TestRequest::payment("k"),
        )
        .await;
        let requests = |outcome| {
            format!(r#"idempotency_requests_total{{endpoint="POST /pay",outcome="{outcome}"}}"#)
        };
        assert_series(
            &handle,
            &[
                (&requests("executed"), 1.0),
                (&requests("mismatch"), 0.0),
                (&requests("outcome_unknown"), 0.0),
                (r#"idempotency_takeovers_total{endpoint="POST /pay"}"#, 0.0),
            ],
        );
        // Each is described, with its unit in its name.
        let text = handle.render();
        for name in ["requests_total", "store_failures_total", "in_flight"] {
            assert!(
                text.contains(&format!("# HELP idempotency_{name} ")),
                "{name}"
            );
        }
    });
}

#[test]
fn a_recorder_that_is_installed_after_the_build_sees_what_happens_from_then_on() {
    with_each_adapter(async |adapter| {
        let engine = engine(&MemoryStore::new(), Policy::new());
        let app = adapter.app(&engine, &CountingHandler::new());
        send(&app, &TestRequest::payment("before")).await;
        let (recorder, handle) = exporter();
        let _guard = metrics::set_default_local_recorder(&recorder);
        engine.describe_metrics();
        assert_series(&handle, &[("idempotency_overdue_executions_total", 0.0)]);
        send(&app, &TestRequest::payment("after")).await;
        let executed = r#"idempotency_requests_total{endpoint="POST /pay",outcome="executed"}"#;
        assert_series(&handle, &[(executed, 1.0)]);
        // Nothing is counted anew.
        engine.describe_metrics();
        assert_series(&handle, &[(executed, 1.0)]);
    });
}

#[test]
fn a_take_over_and_the_fenced_write_of_the_old_execution_are_counted() {
    with_each_adapter(async |adapter| {
        let (recorder, handle) = exporter();
        let _guard = metrics::set_default_local_recorder(&recorder);
        // Given an execution whose lease lapsed because its heartbeats do not arrive.
        let handler = CountingHandler::new();
        let records = MemoryStore::new();
        let store = FaultyStore::over(records.clone());
        store.fail_always(Operation::Renew, Fault::Hang);
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let here = Idempotency::builder().store(store).policy(policy.clone());
        let here = adapter.app(&here.build().unwrap(), &handler);
        let there = adapter.app(&engine(&records, policy), &handler);
        handler.close_gate();
        let old = send_in_task(&here, &TestRequest::payment("k"));
        handler.started(1).await;
        advance(LEASE + Duration::from_secs(1)).await;
        // When a retry takes it over, and the old execution ends afterwards.
        handler.let_through(2);
        send(&there, &TestRequest::payment("k"))
            .await
            .assert_charge(2);
        handler.let_through(1);
        old.await.unwrap().assert_replay_of_charge(2);
        assert_series(
            &handle,
            &[
                (r#"idempotency_takeovers_total{endpoint="POST /pay"}"#, 1.0),
                (
                    r#"idempotency_fenced_writes_total{store="faulty",operation="complete"}"#,
                    1.0,
                ),
                (
                    r#"idempotency_fenced_writes_total{store="memory",operation="complete"}"#,
                    0.0,
                ),
                (
                    r#"idempotency_store_failures_total{store="memory",kind="unavailable"}"#,
                    0.0,
                ),
            ],
        );
        let unavailable = r#"idempotency_store_failures_total{store="faulty",kind="unavailable"}"#;
        assert!(
            scrape(&handle)[unavailable] >= 1.0,
            "heartbeats got no answer"
        );
    });
}

#[test]
fn a_crash_that_a_retry_takes_over_is_counted_once() {
    with_each_adapter(async |adapter| {
        let (recorder, handle) = exporter();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let (store, handler) = (MemoryStore::new(), CountingHandler::new());
        let policy = Policy::new().on_crash(OnCrash::Retry);
        leave_unknown(adapter, &store, &handler, &policy, "k").await;
        let app = adapter.app(&engine(&store, policy), &handler);
        for _ in 0..2 {
            send(&app, &TestRequest::payment("k")).await;
        }
        assert_eq!(handler.starts(), 2);
        assert_series(
            &handle,
            &[(r#"idempotency_takeovers_total{endpoint="POST /pay"}"#, 1.0)],
        );
    });
}

#[test]
fn unknown_records_are_sampled_and_resolutions_counted() {
    with_each_adapter(async |adapter| {
        let (recorder, handle) = exporter();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let (store, handler) = (MemoryStore::new(), CountingHandler::new());
        let policy = Policy::new();
        let purger = Purger::builder().every(Duration::from_secs(10));
        // Less than there is, so that it takes several periods.
        let purger = purger.sample(2).start(store.clone());
        for key in ["a", "b", "c"] {
            leave_unknown(adapter, &store, &handler, &policy, key).await;
        }
        advance(Duration::from_secs(60)).await;
        let unknown = r#"idempotency_unknown_records{store="memory"}"#;
        let oldest = r#"idempotency_oldest_unknown_age_seconds{store="memory"}"#;
        assert_series(&handle, &[(unknown, 3.0)]);
        let age = scrape(&handle)[oldest];
        // The first lapsed 31 s after it began, 31 * 2 + 60 + 1 s ago; the sample is up to a round of periods old.
        assert!((90.0..=123.5).contains(&age), "{age}");

        // When an operator resolves two of them, then these are counted, and the sample forgets them.
        let engine = engine(&store, policy);
        let id = |key| engine.store_key("POST /pay", None, &IdempotencyKey::new(key).unwrap());
        let response = Response::new(bytes::Bytes::from_static(b"by hand"));
        let completed = Resolution::Completed(response);
        engine.resolve(&id("a"), completed).await.unwrap();
        engine
            .resolve(&id("b"), Resolution::NotExecuted)
            .await
            .unwrap();
        engine
            .resolve(&id("b"), Resolution::NotExecuted)
            .await
            .unwrap_err();
        advance(Duration::from_secs(60)).await;
        assert_series(
            &handle,
            &[
                (
                    r#"idempotency_resolutions_total{resolution="completed"}"#,
                    1.0,
                ),
                (
                    r#"idempotency_resolutions_total{resolution="not_executed"}"#,
                    1.0,
                ),
                (unknown, 1.0),
            ],
        );
        assert!(scrape(&handle)[oldest] > 100.0);
        engine
            .resolve(&id("c"), Resolution::NotExecuted)
            .await
            .unwrap();
        advance(Duration::from_secs(60)).await;
        assert_series(&handle, &[(unknown, 0.0), (oldest, 0.0)]);
        purger.stop().await;
    });
}

#[test]
fn purged_records_are_counted() {
    with_paused_clock(async {
        let (recorder, handle) = exporter();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let store = MemoryStore::new();
        let policy = Policy::new().ttl(Duration::from_secs(60));
        let engine = engine(&store, policy);
        let app = Adapter::Layer.app(&engine, &CountingHandler::new());
        for n in 0..5 {
            send(&app, &TestRequest::payment(&format!("k{n}"))).await;
        }
        let count = r#"idempotency_purged_records_total{store="memory"}"#;
        advance(Duration::from_secs(70)).await;
        assert_eq!(engine.purge_expired(2).await.unwrap(), 2);
        assert_series(&handle, &[(count, 2.0)]);
        let purger = Purger::builder().every(Duration::from_secs(10));
        let purger = purger.start(store.clone());
        advance(Duration::from_secs(20)).await;
        assert_series(&handle, &[(count, 5.0)]);
        assert_eq!(purger.stop().await, 3);
    });
}

#[test]
fn histograms_have_buckets_and_sizes_are_those_of_stored_responses() {
    with_paused_clock(async {
        let (recorder, handle) = exporter();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let handler = CountingHandler::responding(|n| {
            let mut response = Response::new(axum::body::Body::from(vec![b'x'; 3000]));
            if n == 2 {
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            }
            response
        });
        let engine = engine(&MemoryStore::new(), Policy::new());
        let app = Adapter::Layer.app(&engine, &handler);
        for key in ["a", "b"] {
            send(&app, &TestRequest::payment(key)).await;
        }
        let bucket =
            |le| format!(r#"idempotency_response_bytes_bucket{{endpoint="POST /pay",le="{le}"}}"#);
        // The second released its key, so nothing was stored.
        assert_series(
            &handle,
            &[
                (&bucket("1024"), 0.0),
                (&bucket("4096"), 1.0),
                (&bucket("+Inf"), 1.0),
                (
                    r#"idempotency_execution_seconds_bucket{endpoint="POST /pay",le="+Inf"}"#,
                    2.0,
                ),
            ],
        );
    });
}
