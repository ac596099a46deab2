//! The metrics of one endpoint.

#[cfg(feature = "metrics")]
use std::sync::{Arc, OnceLock};

use super::{RequestResult, Stopwatch, current};
#[cfg(feature = "metrics")]
use super::{catalogue, series::Series};

/// The time series of one endpoint in one engine. They begin at zero with the endpoint's first request.
#[derive(Debug)]
pub(crate) struct EndpointMetrics {
    #[cfg(feature = "metrics")]
    label: Arc<str>,
    #[cfg(feature = "metrics")]
    series: OnceLock<Box<EndpointSeries>>,
}

#[cfg(feature = "metrics")]
#[derive(Debug)]
struct EndpointSeries {
    requests: [Series; RequestResult::ALL.len()],
    execution: Series,
    wait: Series,
    response_bytes: Series,
    takeovers: Series,
}

#[cfg_attr(
    not(feature = "metrics"),
    allow(clippy::unused_self, reason = "the series are those of the feature")
)]
impl EndpointMetrics {
    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, reason = "the label is for metrics only")
    )]
    pub(crate) fn new(label: &str) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            label: label.into(),
            #[cfg(feature = "metrics")]
            series: OnceLock::new(),
        }
    }

    #[cfg(feature = "metrics")]
    fn series(&self) -> &EndpointSeries {
        self.series.get_or_init(|| {
            let made = Box::new(EndpointSeries::new(&self.label));
            made.begin();
            made
        })
    }

    /// A request ended.
    pub(crate) fn request(&self, result: RequestResult) {
        if let Some(span) = current() {
            span.record("outcome", result.as_str());
        }
        #[cfg(feature = "metrics")]
        self.series().requests[result.index()].add(1);
    }

    /// A handler ran since then.
    pub(crate) fn executed(&self, since: Stopwatch) {
        #[cfg(feature = "metrics")]
        self.series().execution.time(since.elapsed());
        #[cfg(not(feature = "metrics"))]
        let _ = since;
    }

    /// A duplicate has waited since then.
    pub(crate) fn waited(&self, since: Stopwatch) {
        #[cfg(feature = "metrics")]
        self.series().wait.time(since.elapsed());
        #[cfg(not(feature = "metrics"))]
        let _ = since;
    }

    /// A request took the lease of a crashed execution over.
    pub(crate) fn took_over(&self) {
        #[cfg(feature = "metrics")]
        self.series().takeovers.add(1);
    }

    /// A response of so many bytes was stored.
    pub(crate) fn stored(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        #[expect(
            clippy::cast_precision_loss,
            reason = "no response in memory has 2^52 bytes"
        )]
        self.series().response_bytes.sample(bytes as f64);
        #[cfg(not(feature = "metrics"))]
        let _ = bytes;
    }
}

#[cfg(feature = "metrics")]
impl EndpointSeries {
    fn new(endpoint: &Arc<str>) -> Self {
        let label = || ("endpoint", Arc::clone(endpoint).into());
        Self {
            requests: RequestResult::ALL.map(|result| {
                let outcome = ("outcome", result.as_str().into());
                Series::new(catalogue::REQUESTS, [label(), outcome])
            }),
            execution: Series::new(catalogue::EXECUTION, [label()]),
            wait: Series::new(catalogue::WAIT, [label()]),
            response_bytes: Series::new(catalogue::RESPONSE_BYTES, [label()]),
            takeovers: Series::new(catalogue::TAKEOVERS, [label()]),
        }
    }

    fn begin(&self) {
        for counter in self.requests.iter().chain([&self.takeovers]) {
            counter.add(0);
        }
    }
}
