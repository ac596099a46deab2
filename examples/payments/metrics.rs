//! `GET /metrics`: the library's metrics as Prometheus text.
//!
//! The library uses the `metrics` facade (with its feature `metrics`). The application chooses the exporter behind the
//! facade; here it is `metrics-exporter-prometheus`.

use std::time::Duration;

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// The buckets: from a store in memory, which answers in microseconds, to a handler that takes a minute.
const SECONDS: [f64; 13] = [
    0.000_01, 0.000_1, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0,
];

/// How often recorded samples are sorted into their buckets when `/metrics` is not requested.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the exporter and returns its route. Must be called in a runtime.
///
/// # Errors
///
/// If this process has an exporter already.
pub(crate) fn route() -> Result<Router, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .install_recorder()?;
    tokio::spawn(keep_up(handle.clone()));
    let show = async move || {
        let text = (CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
        ([text], handle.render())
    };
    Ok(Router::new().route("/metrics", get(show)))
}

/// Without this, a service that is never scraped would keep every sample.
async fn keep_up(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}
