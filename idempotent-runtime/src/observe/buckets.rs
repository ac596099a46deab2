//! Recommended buckets for the histograms, for exporters that need some.
//!
//! An exporter for Prometheus shows a histogram without buckets as a summary, which cannot be added up over processes and
//! which `histogram_quantile` cannot read. [`BY_METRIC`] has the name of each histogram with its buckets:
//!
//! ```text
//! let mut builder = PrometheusBuilder::new();
//! for (metric, buckets) in buckets::BY_METRIC {
//!     builder = builder.set_buckets_for_metric(Matcher::Full(metric.into()), buckets)?;
//! }
//! ```

use super::catalogue;

/// Every histogram by its name, with the upper bounds of its buckets.
pub const BY_METRIC: [(&str, &[f64]); 5] = [
    (catalogue::EXECUTION, &EXECUTION_SECONDS),
    (catalogue::WAIT, &EXECUTION_SECONDS),
    (catalogue::DELIVERY, &EXECUTION_SECONDS),
    (catalogue::STORE_SECONDS, &STORE_SECONDS),
    (catalogue::RESPONSE_BYTES, &RESPONSE_BYTES),
];

/// Seconds that a handler runs, a duplicate waits or a delivery takes: from a millisecond to fifteen minutes, which is the default
/// `max_lifetime`. The default `wait_timeout` of 30 s is a bound.
pub const EXECUTION_SECONDS: [f64; 14] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 900.0,
];

/// Seconds that an operation of a store takes: from a microsecond, for records in memory, to the default store time-out of
/// 2 s and beyond it.
pub const STORE_SECONDS: [f64; 14] = [
    0.000_001, 0.000_01, 0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0,
    30.0,
];

/// Bytes of a stored response: from 64 B to the default `max_response` of 1 MiB and beyond it.
pub const RESPONSE_BYTES: [f64; 9] = [
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    16_777_216.0,
];
