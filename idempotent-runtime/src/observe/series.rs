//! Time series whose labels are known before a request comes: each key is made once, so that recording
//! allocates nothing here.
//!
//! Keys are kept and not the recorder's handles, so that a recorder that is installed later, or on one thread only, gets
//! everything from then on.

use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, SharedString};

static METADATA: Metadata<'static> =
    Metadata::new("idempotent_runtime", Level::INFO, Some(module_path!()));

/// One time series.
#[derive(Debug)]
pub(super) struct Series(Key);

impl Series {
    pub(super) fn new<const N: usize>(
        name: &'static str,
        labels: [(&'static str, SharedString); N],
    ) -> Self {
        let labels = labels.map(|(name, value)| Label::new(name, value));
        Self(Key::from_parts(name, Vec::from(labels)))
    }

    pub(super) fn add(&self, count: u64) {
        metrics::with_recorder(|recorder| recorder.register_counter(&self.0, &METADATA))
            .increment(count);
    }

    pub(super) fn set(&self, value: f64) {
        metrics::with_recorder(|recorder| recorder.register_gauge(&self.0, &METADATA)).set(value);
    }

    pub(super) fn time(&self, took: Duration) {
        self.sample(took.as_secs_f64());
    }

    pub(super) fn sample(&self, value: f64) {
        metrics::with_recorder(|recorder| recorder.register_histogram(&self.0, &METADATA))
            .record(value);
    }
}
