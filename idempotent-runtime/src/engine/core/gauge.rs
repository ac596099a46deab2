//! How many of something exist at this moment.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts what exists at the same time, and shows it as a metric where one was named.
#[derive(Clone, Debug)]
pub(crate) struct Gauge {
    count: Arc<AtomicUsize>,
    metric: fn(f64),
}

/// One that is counted, until this is dropped.
#[derive(Debug)]
pub(crate) struct GaugeGuard(Gauge);

impl Gauge {
    /// A gauge that reports each change to this metric.
    pub(crate) fn metric(metric: fn(f64)) -> Self {
        Self {
            count: Arc::default(),
            metric,
        }
    }

    /// A gauge that only the engine reads.
    pub(crate) fn internal() -> Self {
        Self::metric(|_| {})
    }

    /// How many exist now.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one more until the guard is dropped.
    pub(crate) fn enter(&self) -> GaugeGuard {
        self.count.fetch_add(1, Ordering::Relaxed);
        (self.metric)(1.0);
        GaugeGuard(self.clone())
    }

    /// The same, if the count is at most `limit` afterwards.
    pub(crate) fn enter_within(&self, limit: usize) -> Option<GaugeGuard> {
        let guard = self.enter();
        (self.count() <= limit).then_some(guard)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        (self.0.metric)(-1.0);
    }
}
