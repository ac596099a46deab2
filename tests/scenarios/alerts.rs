//! What the repository's alerts and dashboard ask for is what is emitted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use idempotent_runtime::{MemoryStore, Policy, store::purger::Purger};

use super::metrics::{engine, exporter, scrape};
use crate::support::{
    Adapter, CountingHandler, TestRequest, advance, run_ready_tasks, send_in_task,
    with_paused_clock,
};

/// Where the alerts and the dashboard are.
fn ops() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops")
}

/// A scrape of a service to which everything has happened.
fn full_scrape() -> BTreeMap<String, f64> {
    let mut seen = BTreeMap::new();
    with_paused_clock(async {
        let (recorder, handle) = exporter();
        let _guard = ::metrics::set_default_local_recorder(&recorder);
        let (store, handler) = (MemoryStore::new(), CountingHandler::new());
        let purger = Purger::builder().every(Duration::from_secs(1));
        let _purger = purger.start(store.clone());
        let engine = engine(&store, Policy::new());
        let app = Adapter::Layer.app(&engine, &handler);
        handler.close_gate();
        let first = send_in_task(&app, &TestRequest::payment("k"));
        handler.started(1).await;
        let waiter = send_in_task(&app, &TestRequest::payment("k"));
        run_ready_tasks().await;
        handler.open_gate();
        first.await.unwrap();
        waiter.await.unwrap();
        advance(Duration::from_secs(5)).await;
        seen = scrape(&handle);
    });
    seen
}

/// The values of each label, by metric.
type Emitted = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn emitted(scrape: &BTreeMap<String, f64>) -> Emitted {
    let mut emitted = Emitted::new();
    for series in scrape.keys() {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let of_metric = emitted.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split("\",") {
            if let Some((label, value)) = label.split_once("=\"") {
                let values = of_metric.entry(label.to_owned()).or_default();
                values.insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
    emitted
}

/// Every query of the two files.
fn queries() -> Vec<String> {
    let alerts = std::fs::read_to_string(ops().join("alerts.yml")).unwrap();
    let lines = alerts.lines();
    let mut queries: Vec<String> = lines
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .map(str::to_owned)
        .collect();
    assert_eq!(queries.len(), alerts.matches("- alert:").count());
    let dashboard = std::fs::read_to_string(ops().join("dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            queries.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    queries
}

/// Checks the metrics, labels and values of one query, and returns the metrics.
fn check(query: &str, emitted: &Emitted) -> Vec<String> {
    let mut found = Vec::new();
    let mut labels = BTreeSet::new();
    for (start, _) in query.match_indices("idempotency_") {
        let rest = &query[start..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let has = emitted
            .get(name)
            .unwrap_or_else(|| panic!("`{name}` is not emitted: {query}"));
        found.push(name.to_owned());
        labels.extend(has.keys().cloned());
        let Some((matchers, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        else {
            continue;
        };
        for matcher in matchers.split(',') {
            let (label, value) = matcher.split_once('=').unwrap();
            let known = has
                .get(label)
                .unwrap_or_else(|| panic!("`{name}` has no label `{label}`: {query}"));
            let value = value.trim_start_matches('~').trim_matches('"');
            // A variable of the dashboard.
            for value in value.split('|').filter(|value| !value.starts_with('$')) {
                assert!(
                    known.contains(value),
                    "{name}: {label} is never {value}: {query}"
                );
            }
        }
    }
    for by in query.split("by (").skip(1) {
        for label in by.split(')').next().unwrap().split(',') {
            assert!(labels.contains(label.trim()), "no label `{label}`: {query}");
        }
    }
    found
}

#[test]
fn alerts_and_dashboard_ask_for_what_is_emitted() {
    let emitted = emitted(&full_scrape());
    let mut asked = BTreeSet::new();
    for query in queries() {
        asked.extend(check(&query, &emitted));
    }
    // And whatever is emitted is shown somewhere.
    for name in emitted.keys() {
        let base = name.trim_end_matches("_count").trim_end_matches("_sum");
        let shown = asked.iter().any(|asked| asked.starts_with(base));
        assert!(shown, "no alert or panel asks for {name}");
    }
    // And described in the guide.
    let guide = include_str!("../../idempotent-runtime/src/guide/metrics.md");
    for name in emitted.keys() {
        let base = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        assert!(
            guide.contains(&format!("`{base}`")),
            "{base} is not in the guide"
        );
    }
}

#[test]
#[should_panic(expected = "is never nonsense")]
fn a_query_for_a_value_that_is_never_emitted_is_noticed() {
    let query = r#"rate(idempotency_requests_total{outcome="nonsense"}[5m])"#;
    check(query, &emitted(&full_scrape()));
}

#[test]
fn promtool_accepts_the_alerts_and_their_tests_pass() {
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let ran = Command::new("promtool")
            .args(arguments)
            .current_dir(ops())
            .output();
        let Ok(ran) = ran else {
            eprintln!("skipped: `promtool` is not installed (Debian: the package `prometheus`)");
            return;
        };
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "promtool {arguments:?}: {said}");
    }
}
