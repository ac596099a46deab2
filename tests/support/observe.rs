//! What an engine shows: its log, its spans and its metrics.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, OnceLock},
};

use metrics::LocalRecorderGuard;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tracing::{Dispatch, Subscriber, subscriber::DefaultGuard};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// Everything that is logged on this thread at any level, with its spans.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Collects while the guard lives.
    pub(crate) fn collect() -> (Self, DefaultGuard) {
        // `tracing` caches for all threads whether any subscriber wants an event. With one subscriber alone the first
        // thread that reaches the event decides, and that thread may have none; a second subscriber prevents it.
        static WITNESS: OnceLock<Dispatch> = OnceLock::new();
        WITNESS.get_or_init(|| Dispatch::new(Self::default().subscriber()));
        let log = Self::default();
        let guard = tracing::subscriber::set_default(log.subscriber());
        (log, guard)
    }

    fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
            .with_ansi(false)
            .with_writer(self.clone())
            .finish()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The metrics recorded on this thread.
pub(crate) struct Metrics {
    seen: Snapshotter,
    /// The values of the gauges: the recorder resets them with each snapshot.
    gauges: Mutex<HashMap<String, i64>>,
}

impl Metrics {
    /// Records metrics while the guard lives.
    pub(crate) fn record(recorder: &DebuggingRecorder) -> (Self, LocalRecorderGuard<'_>) {
        let seen = recorder.snapshotter();
        let metrics = Self {
            seen,
            gauges: Mutex::default(),
        };
        (metrics, metrics::set_default_local_recorder(recorder))
    }

    /// Every series as `name{label=value,…}` with its value; a histogram's is the number of its samples.
    ///
    /// Counters and histograms start at zero after each call. Gauges must be incremented and decremented, not set.
    pub(crate) fn take(&self) -> Vec<(String, i64)> {
        let snapshot = self.seen.snapshot().into_vec();
        let series = snapshot.into_iter().map(|(key, _, _, value)| {
            let labels = key.key().labels();
            let labels: Vec<_> = labels
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            let name = format!("{}{{{}}}", key.key().name(), labels.join(","));
            let value = match value {
                DebugValue::Counter(count) => i64::try_from(count).unwrap(),
                DebugValue::Gauge(change) => {
                    let mut gauges = self.gauges.lock().unwrap();
                    let gauge = gauges.entry(name.clone()).or_default();
                    #[expect(clippy::cast_possible_truncation, reason = "a gauge counts in ones")]
                    let change = change.into_inner() as i64;
                    *gauge += change;
                    *gauge
                }
                DebugValue::Histogram(samples) => i64::try_from(samples.len()).unwrap(),
            };
            (name, value)
        });
        series.collect()
    }
}
