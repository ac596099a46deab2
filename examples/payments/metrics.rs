//! `GET /metrics`: the library's metrics as Prometheus text.
//!
//! The library uses the `metrics` facade (with its feature `metrics`). The application chooses the exporter behind the
//! facade; here it is `metrics-exporter-prometheus`.

use std::time::Duration;

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use idempotent_runtime::buckets;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// How often recorded samples are sorted into their buckets when `/metrics` is not requested.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the exporter and returns its route. Must be called in a runtime, and before the engine is built: counters
/// begin at zero in the exporter that is there then.
///
/// # Errors
///
/// If this process has an exporter already.
pub(crate) fn route() -> Result<Router, BuildError> {
    let mut exporter = PrometheusBuilder::new();
    for (metric, bounds) in buckets::BY_METRIC {
        exporter = exporter.set_buckets_for_metric(Matcher::Full(metric.into()), bounds)?;
    }
    let handle = exporter.install_recorder()?;
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
