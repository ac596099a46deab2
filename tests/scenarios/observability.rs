//! What an operator sees: spans, logs and metrics, and never a client's key (DESIGN.md, section 5; invariant I15).

use std::{collections::BTreeMap, time::Duration};

use axum::response::IntoResponse;
use http::StatusCode;
use idempotent_runtime::{
    Idempotency, IdempotencyKey, MemoryStore, OnCrash, Policy,
    store::inspect::{EntryState, Found, Query, StateKind},
};
use metrics_util::debugging::DebuggingRecorder;

use crate::support::{
    Adapter, CountingHandler, Fault, FaultyStore, Log, Metrics, Operation, TestRequest, advance,
    crash, run_ready_tasks, send, send_in_task, stream, with_each_adapter, with_paused_clock,
};

/// Runs an engine through everything that can happen to requests with this key.
async fn run_through_everything(adapter: Adapter, key: &str) -> FaultyStore {
    let handler = CountingHandler::responding(|n| match n {
        1 => (StatusCode::CREATED, "charged").into_response(),
        2 => panic!("a panic of the scenario"),
        3 => StatusCode::TOO_MANY_REQUESTS.into_response(),
        4 => vec![b'x'; 2 << 20].into_response(),
        5 => stream(["a", "b"]).into_response(),
        n => (StatusCode::CREATED, n.to_string()).into_response(),
    });
    let store = FaultyStore::new();
    let policy = Policy::new().ttl(Duration::from_secs(60));
    let engine = Idempotency::builder().store(store.clone()).policy(policy);
    let engine = engine.build().unwrap();
    let app = adapter.app(&engine, &handler);
    let payment = TestRequest::payment(key).header("authorization", "Bearer canary-token");
    for _ in 1..=5 {
        for _ in 0..2 {
            send(&app, &payment).await;
        }
        send(&app, &payment.clone().body("{}")).await;
        advance(Duration::from_secs(200)).await;
    }
    // A waiter, a disconnect, a crash, a failing store, a shutdown.
    handler.close_gate();
    let n = handler.starts() + 1;
    let first = send_in_task(&app, &payment);
    handler.started(n).await;
    let waiter = send_in_task(&app, &payment);
    run_ready_tasks().await;
    first.abort();
    advance(Duration::from_secs(2)).await;
    handler.open_gate();
    waiter.await.unwrap();
    advance(Duration::from_secs(200)).await;
    handler.close_gate();
    let policy = Policy::new().ttl(Duration::from_secs(60));
    let dying = Idempotency::builder().policy(policy);
    crash(adapter, dying, store.clone(), &payment, &handler).await;
    handler.open_gate();
    advance(Duration::from_secs(40)).await;
    send(&app, &payment).await;
    for operation in [Operation::Acquire, Operation::Complete, Operation::Renew] {
        store.fail_always(operation, Fault::Unreachable);
        send(&app, &payment).await;
        store.heal();
        advance(Duration::from_secs(300)).await;
        store.fail_always(operation, Fault::Unreachable);
        send(&app, &payment).await;
        store.heal();
        advance(Duration::from_secs(300)).await;
    }
    send(&app, &payment.clone().key(key)).await;
    send(&app, &TestRequest::payment(&format!("{key} with a space"))).await;
    handler.close_gate();
    let _last = send_in_task(&app, &TestRequest::payment(&format!("\"{key}2\"")));
    run_ready_tasks().await;
    engine.shutdown(Duration::from_secs(1)).await;
    store
}

#[test]
fn neither_the_log_nor_the_store_contains_the_key_or_the_credentials() {
    with_each_adapter(async |adapter| {
        let key = "sk-a-secret-key";
        let (log, _guard) = Log::collect();
        let store = run_through_everything(adapter, key).await;
        for (place, text) in [("the log", log.text()), ("the store", store.written())] {
            assert!(text.len() > 1000, "{place} is nearly empty");
            for secret in ["secret-key", "canary-token", "amount"] {
                assert!(!text.contains(secret), "{place} contains {secret:?}");
            }
        }
    });
}

#[test]
fn a_record_is_found_by_the_digits_in_the_log_and_listed_under_its_endpoint() {
    with_each_adapter(async |adapter| {
        let (log, _guard) = Log::collect();
        let (handler, store) = (CountingHandler::new(), MemoryStore::new());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let app = adapter.app(&engine, &handler);
        send(&app, &TestRequest::payment("found")).await;

        let text = log.text();
        let (_, digits) = text.split_once("key=").expect("the span names the record");
        let digits: String = digits.chars().take_while(char::is_ascii_hexdigit).collect();
        assert_eq!(digits.len(), 16, "{digits}");
        let found = engine.find(digits.parse().unwrap()).await.unwrap();
        let Found::One(entry) = found else {
            panic!("{digits}: {found:?}")
        };
        let endpoint = entry.endpoint.as_deref().expect("the endpoint is kept");
        assert!(
            text.contains(&format!("endpoint={endpoint:?}")),
            "{endpoint}"
        );
        assert_eq!(entry.state, EntryState::Completed);
        assert!(entry.created_at.is_some() && entry.completed_at.is_some());
        assert_eq!(
            engine.inspect(&entry.key).await.unwrap().unwrap().attempt,
            1
        );

        // Two others, one of them in doubt.
        send(&app, &TestRequest::payment("second")).await;
        handler.close_gate();
        let dying = Idempotency::builder();
        crash(
            adapter,
            dying,
            store,
            &TestRequest::payment("crashed"),
            &handler,
        )
        .await;
        handler.open_gate();
        advance(Duration::from_secs(40)).await;
        let all = engine.list(&Query::new().endpoint(endpoint)).await.unwrap();
        assert_eq!((all.entries.len(), all.next), (3, None));
        let unknown = Query::new().state(StateKind::Unknown);
        let unknown = engine.list(&unknown).await.unwrap().entries;
        let [unknown] = &*unknown else {
            panic!("{unknown:?}")
        };
        assert_eq!(unknown.endpoint.as_deref(), Some(endpoint));
        let stats = engine.stats(None, 100).await.unwrap();
        assert_eq!((stats.completed, stats.unknown), (2, 1));
        assert!(stats.is_exact());
    });
}

#[test]
fn debug_output_never_shows_the_key() {
    with_each_adapter(async |adapter| {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder()
            .secret("0123456789abcdef-secret")
            .build()
            .unwrap();
        send(
            &adapter.app(&engine, &handler),
            &TestRequest::payment("sk-secret"),
        )
        .await;
        let execution = handler.execution(1);
        let shown = format!(
            "{engine:?} {:#?} {execution:?} {:?}",
            execution.key(),
            engine.clone()
        );
        assert!(!shown.contains("secret"), "{shown}");
        assert!(!execution.downstream_key("x").contains("secret"));
    });
}

/// The fields of the spans of all requests, in the order in which the spans were closed.
fn spans(log: &Log) -> Vec<String> {
    let text = log.text();
    let closed = text.lines().filter(|line| line.contains("close"));
    let spans = closed.filter_map(|line| {
        let (_, span) = line.split_once("idempotent{")?;
        Some(span.split_once('}')?.0.to_owned())
    });
    spans.collect()
}

#[test]
fn each_request_has_a_span_that_says_how_it_ended() {
    with_each_adapter(async |adapter| {
        let (log, _guard) = Log::collect();
        let handler = CountingHandler::new();
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let (store, dying) = (
            MemoryStore::new(),
            Idempotency::builder().policy(policy.clone()),
        );
        handler.close_gate();
        let payment = TestRequest::payment("k");
        crash(adapter, dying, store.clone(), &payment, &handler).await;
        handler.open_gate();
        let engine = Idempotency::builder().policy(policy).store(store);
        let engine = engine.build().unwrap();
        let app = adapter.app(&engine, &handler);
        advance(Duration::from_secs(31)).await;
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_charge(2);
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_replay_of_charge(2);
        send(&app, &TestRequest::payment("k").body("{}")).await;
        send(&app, &TestRequest::payment("a,b")).await;
        let key = engine.store_key("POST /pay", None, &IdempotencyKey::new("k").unwrap());
        let seen = spans(&log);
        let of = |outcome: &str| {
            let has = |span: &&String| span.contains(&format!("outcome=\"{outcome}\""));
            seen.iter()
                .find(has)
                .unwrap_or_else(|| panic!("{outcome} in {seen:?}"))
        };
        for outcome in ["executed", "replayed", "mismatch"] {
            let span = of(outcome);
            assert!(span.contains("endpoint=\"POST /pay\""), "{span}");
            assert!(span.contains(&format!("key={key}")), "{span}");
            assert_eq!(span.contains("attempt=2"), outcome == "executed", "{span}");
        }
        assert!(!of("invalid_key").contains("key=a"));
    });
}

#[test]
fn an_execution_that_outlives_its_client_keeps_its_span_and_its_log() {
    with_each_adapter(async |adapter| {
        let (log, _guard) = Log::collect();
        let handler = CountingHandler::responding(|_| {
            tracing::info!("a line of the handler's");
            StatusCode::OK.into_response()
        });
        let engine = Idempotency::builder().build().unwrap();
        let app = adapter.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        first.abort();
        run_ready_tasks().await;
        handler.open_gate();
        run_ready_tasks().await;
        let text = log.text();
        let line = text
            .lines()
            .find(|line| line.contains("a line of the handler's"))
            .unwrap();
        assert!(line.contains("idempotent{endpoint=\"POST /pay\""), "{line}");
        assert!(spans(&log)[0].contains("outcome=\"executed\""));
    });
}

/// Adds what was counted of each outcome, and returns all other series.
fn read(metrics: &Metrics, outcomes: &mut BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let mut others = BTreeMap::new();
    for (series, value) in metrics.take() {
        let outcome = series.strip_prefix("idempotency_requests_total{endpoint=POST /pay,outcome=");
        match outcome {
            // Not yet, or not again.
            Some(_) if value == 0 => {}
            Some(outcome) => *outcomes.entry(outcome.replace('}', "")).or_default() += value,
            None => {
                others.insert(series, value);
            }
        }
    }
    others
}

/// How often each outcome happens in the scenario below.
const EXPECTED: [(&str, i64); 12] = [
    ("conflict", 2),
    ("executed", 3),
    ("invalid_key", 1),
    ("mismatch", 1),
    ("missing_key", 1),
    ("outcome_unknown", 1),
    ("overloaded", 1),
    ("replayed", 1),
    ("replayed_after_wait", 1),
    ("request_too_large", 1),
    ("response_not_stored", 1),
    ("store_unavailable", 1),
];

#[test]
fn every_outcome_is_counted_and_every_gauge_returns_to_zero() {
    with_each_adapter(async |adapter| {
        let recorder = DebuggingRecorder::new();
        let (metrics, _guard) = Metrics::record(&recorder);
        let mut outcomes = BTreeMap::new();
        let handler = CountingHandler::responding(|n| match n {
            3 => vec![b'x'; 2000].into_response(),
            n => (StatusCode::CREATED, n.to_string()).into_response(),
        });
        let store = FaultyStore::new();
        let policy = Policy::new()
            .max_body(100)
            .max_response(1000)
            .required(true)
            .wait_timeout(Duration::from_secs(5));
        let engine = Idempotency::builder()
            .store(store.clone())
            .policy(policy.clone());
        let engine = engine.max_detached(1).max_waiters(2).build().unwrap();
        let app = adapter.app(&engine, &handler);

        // Given a detached execution and two waiters.
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        let waiter = send_in_task(&app, &TestRequest::payment("k"));
        let leaving = send_in_task(&app, &TestRequest::payment("k"));
        run_ready_tasks().await;
        first.abort();
        run_ready_tasks().await;
        let gauges = read(&metrics, &mut outcomes);
        for (gauge, value) in [
            ("idempotency_in_flight{}", 1),
            ("idempotency_waiters{}", 2),
            ("idempotency_detached_executions{}", 1),
        ] {
            assert_eq!(gauges.get(gauge), Some(&value), "{gauge} in {gauges:?}");
        }
        send(&app, &TestRequest::payment("k"))
            .await
            .assert_problem(409, "conflict");
        send(&app, &TestRequest::payment("no-room"))
            .await
            .assert_problem(503, "overloaded");
        leaving.abort();
        handler.open_gate();
        waiter.await.unwrap();

        // When each other outcome happens once.
        send(&app, &TestRequest::payment("k")).await;
        send(&app, &TestRequest::payment("k").body("{}")).await;
        send(&app, &TestRequest::payment("a,b")).await;
        send(&app, &TestRequest::post("/pay")).await;
        send(&app, &TestRequest::payment("l").body("x".repeat(101))).await;
        store.fail_always(Operation::Acquire, Fault::Unreachable);
        send(&app, &TestRequest::payment("l")).await;
        store.heal();
        handler.close_gate();
        let slow = send_in_task(&app, &TestRequest::payment("m"));
        handler.started(2).await;
        let conflict = send_in_task(&app, &TestRequest::payment("m"));
        run_ready_tasks().await;
        advance(Duration::from_secs(6)).await;
        conflict.await.unwrap().assert_problem(409, "conflict");
        handler.open_gate();
        slow.await.unwrap();
        send(&app, &TestRequest::payment("n")).await;
        send(&app, &TestRequest::payment("n"))
            .await
            .assert_problem(409, "response_not_stored");
        handler.close_gate();
        let (dying, crashed) = (
            Idempotency::builder().policy(policy),
            TestRequest::payment("o"),
        );
        crash(adapter, dying, store.clone(), &crashed, &handler).await;
        handler.open_gate();
        advance(Duration::from_secs(31)).await;
        send(&app, &TestRequest::payment("o"))
            .await
            .assert_problem(409, "outcome_unknown");

        // Then each was counted.
        let others = read(&metrics, &mut outcomes);
        let expected = EXPECTED.map(|(name, n)| (name.to_owned(), n)).into();
        assert_eq!(outcomes, expected);

        // And the gauges are back; the one execution still in flight is the crashed one.
        for (gauge, value) in [
            ("idempotency_in_flight{}", 1),
            ("idempotency_waiters{}", 0),
            ("idempotency_detached_executions{}", 0),
        ] {
            assert_eq!(others.get(gauge), Some(&value), "{gauge} in {others:?}");
        }
        let series = |name: &str| others.keys().any(|series| series.starts_with(name));
        for histogram in [
            "idempotency_execution_seconds{endpoint=POST /pay}",
            "idempotency_wait_seconds{endpoint=POST /pay}",
            "idempotency_store_operation_seconds{store=faulty,operation=acquire,result=ok}",
            "idempotency_store_operation_seconds{store=faulty,operation=acquire,result=error}",
            "idempotency_store_operation_seconds{store=faulty,operation=complete,result=ok}",
        ] {
            assert!(series(histogram), "{histogram} in {others:?}");
        }
    });
}

#[test]
fn gauges_return_to_zero_after_streams_panics_and_shutdowns() {
    with_each_adapter(async |adapter| {
        let recorder = DebuggingRecorder::new();
        let (metrics, _guard) = Metrics::record(&recorder);
        let handler = CountingHandler::responding(|n| match n % 4 {
            0 => panic!("a panic of the scenario"),
            1 => stream(["a", "b"]).into_response(),
            2 => StatusCode::TOO_MANY_REQUESTS.into_response(),
            _ => StatusCode::OK.into_response(),
        });
        let engine = Idempotency::builder()
            .store(MemoryStore::new())
            .build()
            .unwrap();
        let app = adapter.app(&engine, &handler);
        for n in 0..40 {
            let request = send_in_task(&app, &TestRequest::payment(&format!("k{n}")));
            for _ in 0..n % 7 {
                tokio::task::yield_now().await;
            }
            if n % 2 == 0 {
                request.abort();
            }
            run_ready_tasks().await;
        }
        engine.shutdown(Duration::from_secs(1)).await;
        run_ready_tasks().await;
        let mut outcomes = BTreeMap::new();
        let gauges = read(&metrics, &mut outcomes);
        for gauge in ["in_flight", "detached_executions"] {
            let gauge = format!("idempotency_{gauge}{{}}");
            assert_eq!(gauges.get(&gauge).copied().unwrap_or(0), 0, "{gauge}");
        }
        assert!(outcomes["executed"] >= 20, "{outcomes:?}");
    });
}

#[test]
fn a_client_cannot_create_time_series() {
    with_paused_clock(async {
        // Given a layer around a fallback, so that no route template is known.
        let recorder = DebuggingRecorder::new();
        let (metrics, _guard) = Metrics::record(&recorder);
        let handler = CountingHandler::new();
        let layer =
            idempotent_runtime::IdempotencyLayer::new(Idempotency::builder().build().unwrap());
        let app = axum::Router::new().fallback({
            let handler = handler.clone();
            move |request: axum::extract::Request| handler.call(request)
        });
        let app = axum::Router::new().fallback_service(tower::Layer::layer(&layer, app));
        for n in 0..50 {
            send(
                &app,
                &TestRequest::post(format!("/path-{n}")).key(&format!("k{n}")),
            )
            .await;
        }
        let requests = metrics.take().into_iter();
        let requests: Vec<_> = requests
            .filter(|(series, _)| series.starts_with("idempotency_requests_total"))
            .collect();
        // The outcomes of that one endpoint, all but one of them at zero.
        let endpoint = |series: &str| series.contains("endpoint=POST unmatched,");
        assert!(
            requests.iter().all(|(series, _)| endpoint(series)),
            "{requests:?}"
        );
        let requests: Vec<_> = requests.into_iter().filter(|(_, n)| *n != 0).collect();
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert_eq!(requests[0].1, 50);
        assert!(requests[0].0.contains("POST unmatched"), "{requests:?}");
    });
}
