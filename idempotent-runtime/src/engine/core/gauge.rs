//! How many of something exist at this moment.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// Counts what exists at the same time, and shows it as a metric where one was named.
#[derive(Clone, Debug)]
pub(crate) struct Gauge {
    inner: Arc<Inner>,
    metric: fn(f64),
}

#[derive(Debug, Default)]
struct Inner {
    count: AtomicUsize,
    left: Notify,
}

/// One that is counted, until this is dropped.
#[derive(Debug)]
pub(crate) struct GaugeGuard(Gauge);

impl Gauge {
    /// A gauge that reports each change to this metric.
    pub(crate) fn metric(metric: fn(f64)) -> Self {
        Self {
            inner: Arc::default(),
            metric,
        }
    }

    /// A gauge that only the engine reads.
    pub(crate) fn internal() -> Self {
        Self::metric(|_| {})
    }

    /// How many exist now.
    pub(crate) fn count(&self) -> usize {
        self.inner.count.load(Ordering::SeqCst)
    }

    /// Counts one more until the guard is dropped.
    pub(crate) fn enter(&self) -> GaugeGuard {
        self.inner.count.fetch_add(1, Ordering::SeqCst);
        (self.metric)(1.0);
        GaugeGuard(self.clone())
    }

    /// The same, if the count is at most `limit` afterwards.
    pub(crate) fn enter_within(&self, limit: usize) -> Option<GaugeGuard> {
        let guard = self.enter();
        (self.count() <= limit).then_some(guard)
    }

    /// Waits until none exists; `false` when the deadline came first.
    pub(crate) async fn none(&self, deadline: Instant) -> bool {
        loop {
            let mut left = pin!(self.inner.left.notified());
            left.as_mut().enable();
            if self.count() == 0 {
                return true;
            }
            if timeout_at(deadline, left).await.is_err() {
                return self.count() == 0;
            }
        }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        (self.0.metric)(-1.0);
        self.0.inner.count.fetch_sub(1, Ordering::SeqCst);
        self.0.inner.left.notify_waiters();
    }
}
