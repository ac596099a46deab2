//! The metrics and spans: their names, and the functions that record them.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `idempotency_requests_total` | counter | `endpoint`, `outcome` |
//! | `idempotency_execution_seconds` | histogram | `endpoint` |
//! | `idempotency_wait_seconds` | histogram | `endpoint` |
//! | `idempotency_store_operation_seconds` | histogram | `store`, `operation`, `result` |
//! | `idempotency_in_flight` | gauge | |
//! | `idempotency_waiters` | gauge | |
//! | `idempotency_detached_executions` | gauge | |
//! | `idempotency_overdue_executions_total` | counter | |
//! | `idempotency_server_changes_total` | counter | `store`, `change` |
//! | `idempotency_records` | gauge | `store` |
//! | `idempotency_deliveries_total` | counter | `topic`, `result` |
//! | `idempotency_delivery_seconds` | histogram | `topic` |
//!
//! The span of a request is `idempotent` with the fields `endpoint`, `key` (a short digest of the record's
//! identity, never the client's key), `attempt` and `outcome`. That of an attempt to deliver a message of the outbox is
//! `idempotent_delivery` with `topic`, `message` (its id) and `attempt`.

use tracing::{Level, Span, field, level_filters::LevelFilter};

use crate::{problem::ProblemCode, scope::StoreKey};

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

/// A request ended.
pub(crate) fn request(endpoint: &str, result: RequestResult) {
    if let Some(span) = current() {
        span.record("outcome", result.as_str());
    }
    #[cfg(feature = "metrics")]
    metrics::counter!("idempotency_requests_total", "endpoint" => endpoint.to_owned(), "outcome" => result.as_str())
        .increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = endpoint;
}

/// A handler ran since then.
pub(crate) fn executed(endpoint: &str, since: Stopwatch) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("idempotency_execution_seconds", "endpoint" => endpoint.to_owned())
        .record(since.started.elapsed());
    #[cfg(not(feature = "metrics"))]
    let _ = (endpoint, since);
}

/// A duplicate has waited since then.
pub(crate) fn waited(endpoint: &str, since: Stopwatch) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("idempotency_wait_seconds", "endpoint" => endpoint.to_owned())
        .record(since.started.elapsed());
    #[cfg(not(feature = "metrics"))]
    let _ = (endpoint, since);
}

/// A store operation took the time since then.
pub(crate) fn store_operation(
    store: &'static str,
    operation: &'static str,
    ok: bool,
    since: Stopwatch,
) {
    #[cfg(feature = "metrics")]
    metrics::histogram!(
        "idempotency_store_operation_seconds",
        "store" => store,
        "operation" => operation,
        "result" => if ok { "ok" } else { "error" }
    )
    .record(since.started.elapsed());
    #[cfg(not(feature = "metrics"))]
    let _ = (store, operation, ok, since);
}

/// How an attempt to deliver a message ended, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryResult {
    Delivered,
    /// It is tried again.
    Retry,
    Dead,
    /// The claim had ended, or nobody knows: the message is delivered again.
    Late,
}

/// The span of one attempt to deliver a message.
pub(crate) fn delivery_span(topic: &str, message: &str, attempt: u32) -> Span {
    tracing::span!(SPAN_LEVEL, "idempotent_delivery", topic, message, attempt)
}

/// An attempt to deliver a message ended.
pub(crate) fn delivery(topic: &str, result: DeliveryResult, since: Stopwatch) {
    #[cfg(feature = "metrics")]
    {
        let result = match result {
            DeliveryResult::Delivered => "delivered",
            DeliveryResult::Retry => "retry",
            DeliveryResult::Dead => "dead",
            DeliveryResult::Late => "late",
        };
        let topic = topic.to_owned();
        metrics::counter!("idempotency_deliveries_total", "topic" => topic.clone(), "result" => result)
            .increment(1);
        metrics::histogram!("idempotency_delivery_seconds", "topic" => topic)
            .record(since.started.elapsed());
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (topic, result, since);
}

/// An execution is older than its `max_lifetime`.
pub(crate) fn overdue() {
    #[cfg(feature = "metrics")]
    metrics::counter!("idempotency_overdue_executions_total").increment(1);
}

/// Another server answers for a store, or a weaker one.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
pub(crate) fn server_changed(store: &'static str, change: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("idempotency_server_changes_total", "store" => store, "change" => change)
        .increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = (store, change);
}

macro_rules! gauges {
    ($($(#[$doc:meta])* $name:ident = $metric:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name(change: f64) {
            #[cfg(feature = "metrics")]
            metrics::gauge!($metric).increment(change);
            #[cfg(not(feature = "metrics"))]
            let _ = change;
        }
    )*};
}

gauges! {
    /// Executions that hold a key.
    in_flight = "idempotency_in_flight";
    /// Duplicates that wait for an outcome.
    waiters = "idempotency_waiters";
    /// Executions whose client has gone.
    detached = "idempotency_detached_executions";
}

/// How many records a store holds now, for a store that knows it without counting.
#[cfg(feature = "memory")]
pub(crate) fn records(store: &'static str, records: impl FnOnce() -> usize) {
    #[cfg(feature = "metrics")]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge of more than 2^52 records is beyond any memory"
    )]
    metrics::gauge!("idempotency_records", "store" => store).set(records() as f64);
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
}
