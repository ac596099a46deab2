//! The metrics of one store.

use super::{Stopwatch, StoreOperation};
#[cfg(feature = "metrics")]
use super::{catalogue, series::Series};
use crate::store::{StoreErrorKind, Write};

/// The time series of the store of one engine or purger.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    #[cfg(feature = "metrics")]
    series: Box<StoreSeries>,
}

#[cfg(feature = "metrics")]
#[derive(Debug)]
struct StoreSeries {
    /// Of each operation: failed and done.
    seconds: [[Series; 2]; StoreOperation::ALL.len()],
    failures: [Series; KINDS.len()],
    fenced: [Series; FENCED.len()],
    purged: Series,
    unknown: Series,
    oldest_unknown: Series,
}

/// The operations that a store refuses to who has lost the lease.
#[cfg(feature = "metrics")]
const FENCED: [StoreOperation; 6] = [
    StoreOperation::Renew,
    StoreOperation::Complete,
    StoreOperation::Release,
    StoreOperation::Abandon,
    StoreOperation::AppendStep,
    StoreOperation::Commit,
];

#[cfg(feature = "metrics")]
const KINDS: [StoreErrorKind; 7] = [
    StoreErrorKind::Unavailable,
    StoreErrorKind::Full,
    StoreErrorKind::TooLarge,
    StoreErrorKind::Corrupt,
    StoreErrorKind::Refused,
    StoreErrorKind::InvalidCursor,
    StoreErrorKind::NotInspectable,
];

#[cfg(feature = "metrics")]
fn kind_label(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::Unavailable => "unavailable",
        StoreErrorKind::Full => "full",
        StoreErrorKind::TooLarge => "too_large",
        StoreErrorKind::Corrupt => "corrupt",
        StoreErrorKind::Refused => "refused",
        StoreErrorKind::InvalidCursor => "invalid_cursor",
        StoreErrorKind::NotInspectable => "not_inspectable",
    }
}

#[cfg_attr(
    not(feature = "metrics"),
    allow(clippy::unused_self, reason = "the series are those of the feature")
)]
impl StoreMetrics {
    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, reason = "the label is for metrics only")
    )]
    pub(crate) fn new(store: &'static str) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            series: Box::new(StoreSeries::new(store)),
        }
    }

    /// The counters exist from now on.
    pub(crate) fn begin(&self) {
        #[cfg(feature = "metrics")]
        for counter in self.series.failures.iter().chain(&self.series.fenced) {
            counter.add(0);
        }
        self.purged(0);
    }

    /// An operation took the time since then, and failed like this if it failed.
    pub(crate) fn operation(
        &self,
        operation: StoreOperation,
        failed: Option<StoreErrorKind>,
        since: Stopwatch,
    ) {
        #[cfg(feature = "metrics")]
        {
            let [error, ok] = &self.series.seconds[operation as usize];
            let series = if failed.is_some() { error } else { ok };
            series.time(since.elapsed());
            let kind = KINDS.iter().position(|kind| Some(*kind) == failed);
            if let Some(kind) = kind {
                self.series.failures[kind].add(1);
            }
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (operation, failed, since);
    }

    /// The answer to a write: counted if the lease is another's.
    pub(crate) fn wrote(&self, operation: StoreOperation, write: Write) {
        #[cfg(feature = "metrics")]
        if write == Write::Fenced
            && let Some(place) = FENCED.iter().position(|fenced| *fenced == operation)
        {
            self.series.fenced[place].add(1);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (operation, write);
    }

    /// So many expired records were deleted.
    pub(crate) fn purged(&self, records: usize) {
        #[cfg(feature = "metrics")]
        self.series.purged.add(records as u64);
        #[cfg(not(feature = "metrics"))]
        let _ = records;
    }

    /// So many records are unknown, the oldest for so long.
    #[cfg(feature = "metrics")]
    pub(crate) fn unknown(&self, records: u64, oldest: std::time::Duration) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "no store has 2^52 unknown records"
        )]
        self.series.unknown.set(records as f64);
        self.series.oldest_unknown.set(oldest.as_secs_f64());
    }
}

#[cfg(feature = "metrics")]
impl StoreSeries {
    fn new(store: &'static str) -> Self {
        let label = || ("store", store.into());
        Self {
            seconds: StoreOperation::ALL.map(|operation| {
                ["error", "ok"].map(|result| {
                    let operation = ("operation", operation.as_str().into());
                    let labels = [label(), operation, ("result", result.into())];
                    Series::new(catalogue::STORE_SECONDS, labels)
                })
            }),
            failures: KINDS.map(|kind| {
                let kind = ("kind", kind_label(kind).into());
                Series::new(catalogue::STORE_FAILURES, [label(), kind])
            }),
            fenced: FENCED.map(|operation| {
                let operation = ("operation", operation.as_str().into());
                Series::new(catalogue::FENCED, [label(), operation])
            }),
            purged: Series::new(catalogue::PURGED, [label()]),
            unknown: Series::new(catalogue::UNKNOWN, [label()]),
            oldest_unknown: Series::new(catalogue::OLDEST_UNKNOWN, [label()]),
        }
    }
}
