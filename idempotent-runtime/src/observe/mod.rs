//! The metrics and spans: their names, and the functions that record them.
//!
//! | file | what it holds |
//! |---|---|
//! | `catalogue` | every metric's name, unit and meaning |
//! | `endpoint`, `store` | the time series of one endpoint, and of one store |
//! | `delivery` | the deliveries of the outbox |
//! | `series` | one time series, whose key is made once |
//! | `operation` | the operations of a store |
//! | `buckets` | recommended buckets, which are public |
//!
//! The span of a request is `idempotent` with the fields `endpoint`, `key` (a short digest of the record's
//! identity, never the client's key), `attempt` and `outcome`. That of an attempt to deliver a message of the outbox is
//! `idempotent_delivery` with `topic`, `message` (its id) and `attempt`.

use tracing::{Level, Span, field, level_filters::LevelFilter};

use crate::{problem::ProblemCode, scope::StoreKey};

#[cfg(feature = "metrics")]
pub mod buckets;
#[cfg(feature = "metrics")]
mod catalogue;
mod delivery;
mod endpoint;
mod operation;
#[cfg(feature = "metrics")]
mod series;
mod store;

pub(crate) use delivery::{DeliveryResult, delivery, delivery_span};
pub(crate) use endpoint::EndpointMetrics;
pub(crate) use operation::StoreOperation;
pub(crate) use store::StoreMetrics;

/// What kind of metric it is.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// How a request ended, as metrics and spans name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestResult {
    /// The handler ran, and the client got its response.
    Executed,
    /// An extractor of the handler refused the request.
    Rejected,
    /// The stored response was replayed.
    Replayed,
    /// The same, after waiting for it.
    ReplayedAfterWait,
    /// The handler ran without a record, because the store could not be asked.
    Unprotected,
    /// The engine answered with this problem, under the same name.
    Problem(ProblemCode),
}

impl RequestResult {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Rejected => "rejected",
            Self::Replayed => "replayed",
            Self::ReplayedAfterWait => "replayed_after_wait",
            Self::Unprotected => "unprotected",
            Self::Problem(code) => code.as_str(),
        }
    }
}

#[cfg(feature = "metrics")]
impl RequestResult {
    /// Those that are no problems.
    const OWN: [Self; 5] = [
        Self::Executed,
        Self::Rejected,
        Self::Replayed,
        Self::ReplayedAfterWait,
        Self::Unprotected,
    ];

    /// All of them; each stands at its [`index`](Self::index).
    const ALL: [Self; Self::OWN.len() + ProblemCode::ALL.len()] = {
        let mut all = [Self::Executed; Self::OWN.len() + ProblemCode::ALL.len()];
        let mut n = 0;
        while n < all.len() {
            all[n] = if n < Self::OWN.len() {
                Self::OWN[n]
            } else {
                Self::Problem(ProblemCode::ALL[n - Self::OWN.len()])
            };
            n += 1;
        }
        all
    };

    fn index(self) -> usize {
        match self {
            Self::Executed => 0,
            Self::Rejected => 1,
            Self::Replayed => 2,
            Self::ReplayedAfterWait => 3,
            Self::Unprotected => 4,
            // The codes are listed in the order of their declaration.
            Self::Problem(code) => Self::OWN.len() + code as usize,
        }
    }
}

const SPAN_LEVEL: Level = Level::INFO;

/// The span of one request.
pub(crate) fn span(endpoint: &str) -> Span {
    tracing::span!(
        SPAN_LEVEL,
        "idempotent",
        endpoint,
        key = field::Empty,
        attempt = field::Empty,
        outcome = field::Empty
    )
}

/// The span of this request, if anybody listens to it: where nobody does, to ask for it costs more than to know that.
fn current() -> Option<Span> {
    (LevelFilter::current() >= SPAN_LEVEL)
        .then(Span::current)
        .filter(|span| !span.is_disabled())
}

/// The record this request is about.
pub(crate) fn record_key(key: &StoreKey) {
    if let Some(span) = current() {
        span.record("key", field::display(key));
    }
}

/// The attempt that executes.
pub(crate) fn record_attempt(attempt: u32) {
    if let Some(span) = current() {
        span.record("attempt", attempt);
    }
}

/// Describes every metric, and has the counters and gauges of the process begin at zero.
pub(crate) fn begin() {
    #[cfg(feature = "metrics")]
    {
        catalogue::describe();
        metrics::counter!(catalogue::OVERDUE).increment(0);
        for how in [Resolved::Completed, Resolved::NotExecuted] {
            resolutions(how, 0);
        }
        in_flight(0.0);
        waiters(0.0);
        detached(0.0);
    }
}

/// An execution is older than its `max_lifetime`.
pub(crate) fn overdue() {
    #[cfg(feature = "metrics")]
    metrics::counter!(catalogue::OVERDUE).increment(1);
}

/// What an operator said of an unknown outcome.
#[derive(Clone, Copy)]
pub(crate) enum Resolved {
    /// It was executed, with this response.
    Completed,
    /// It was not executed.
    NotExecuted,
}

/// An operator resolved a record.
pub(crate) fn resolved(how: Resolved) {
    #[cfg(feature = "metrics")]
    resolutions(how, 1);
    #[cfg(not(feature = "metrics"))]
    let _ = how;
}

#[cfg(feature = "metrics")]
fn resolutions(how: Resolved, count: u64) {
    let how = match how {
        Resolved::Completed => "completed",
        Resolved::NotExecuted => "not_executed",
    };
    metrics::counter!(catalogue::RESOLUTIONS, "resolution" => how).increment(count);
}

/// Another server answers for a store, or a weaker one.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
pub(crate) fn server_changed(store: &'static str, change: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!(catalogue::SERVER_CHANGES, "store" => store, "change" => change).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = (store, change);
}

macro_rules! gauges {
    ($($(#[$doc:meta])* $name:ident = $metric:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name(change: f64) {
            #[cfg(feature = "metrics")]
            metrics::gauge!(catalogue::$metric).increment(change);
            #[cfg(not(feature = "metrics"))]
            let _ = change;
        }
    )*};
}

gauges! {
    /// Executions that hold a key.
    in_flight = IN_FLIGHT;
    /// Duplicates that wait for an outcome.
    waiters = WAITERS;
    /// Executions whose client has gone.
    detached = DETACHED;
}

/// How many records a store holds now, for a store that knows it without counting.
#[cfg(feature = "memory")]
pub(crate) fn records(store: &'static str, records: impl FnOnce() -> usize) {
    #[cfg(feature = "metrics")]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge of more than 2^52 records is beyond any memory"
    )]
    metrics::gauge!(catalogue::RECORDS, "store" => store).set(records() as f64);
    #[cfg(not(feature = "metrics"))]
    let _ = (store, records);
}

/// Measures a time that becomes a metric. Without the `metrics` feature it does not read the clock.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch {
    #[cfg(feature = "metrics")]
    started: std::time::Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            started: std::time::Instant::now(),
        }
    }

    #[cfg(feature = "metrics")]
    fn elapsed(self) -> std::time::Duration {
        self.started.elapsed()
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn each_result_and_each_operation_stands_at_its_number() {
        for (n, result) in RequestResult::ALL.into_iter().enumerate() {
            assert_eq!(result.index(), n, "{result:?}");
        }
        for (n, operation) in StoreOperation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, n, "{operation:?}");
        }
    }
}
