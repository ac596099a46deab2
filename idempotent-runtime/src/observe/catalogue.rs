//! Every metric: its name, unit and meaning, once.

use metrics::{SharedString, Unit};

use super::Kind;

/// What the exporter is told of a metric.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    pub(super) help: &'static str,
}

macro_rules! catalogue {
    ($($constant:ident = $name:literal $kind:ident $unit:ident $help:literal;)*) => {
        $(pub(super) const $constant: &str = $name;)*

        /// All of them, in the order of the guide's table.
        pub(super) const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            help: $help,
        }),*];
    };
}

catalogue! {
    REQUESTS = "idempotency_requests_total" Counter Count "Keyed requests, by how they ended.";
    EXECUTION = "idempotency_execution_seconds" Histogram Seconds "How long a handler ran.";
    WAIT = "idempotency_wait_seconds" Histogram Seconds "How long a duplicate waited for the first request's outcome.";
    RESPONSE_BYTES = "idempotency_response_bytes" Histogram Bytes "The size of a stored response, as it is stored.";
    IN_FLIGHT = "idempotency_in_flight" Gauge Count "Executions of this process that hold a key.";
    WAITERS = "idempotency_waiters" Gauge Count "Duplicates that wait in this process.";
    DETACHED = "idempotency_detached_executions" Gauge Count "Executions whose client has gone.";
    OVERDUE = "idempotency_overdue_executions_total" Counter Count "Executions that became older than max_lifetime.";
    TAKEOVERS = "idempotency_takeovers_total" Counter Count "Lapsed leases of crashed executions that a retry took over.";
    FENCED = "idempotency_fenced_writes_total" Counter Count "Writes that the store refused because the lease is another's.";
    RESOLUTIONS = "idempotency_resolutions_total" Counter Count "Unknown records that an operator resolved by this process.";
    UNKNOWN = "idempotency_unknown_records" Gauge Count "Records without an outcome whose lease lapsed, as the purger saw last.";
    OLDEST_UNKNOWN = "idempotency_oldest_unknown_age_seconds" Gauge Seconds "For how long the oldest of them has been unknown.";
    PURGED = "idempotency_purged_records_total" Counter Count "Expired records that this process deleted.";
    STORE_SECONDS = "idempotency_store_operation_seconds" Histogram Seconds "How long an operation of the store took.";
    STORE_FAILURES = "idempotency_store_failures_total" Counter Count "Operations of the store that failed, by kind.";
    SERVER_CHANGES = "idempotency_server_changes_total" Counter Count "Times that another server, or a weaker one, answered for a store.";
    DELIVERIES = "idempotency_deliveries_total" Counter Count "Attempts to deliver a message of the outbox, by how they ended.";
    DELIVERY = "idempotency_delivery_seconds" Histogram Seconds "How long an attempt to deliver a message took.";
    RECORDS = "idempotency_records" Gauge Count "Records in memory.";
}

/// Tells the recorder the unit and meaning of every metric.
pub(super) fn describe() {
    metrics::with_recorder(|recorder| {
        for metric in METRICS {
            let (name, unit) = (metric.name.into(), Some(metric.unit));
            let help = SharedString::const_str(metric.help);
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        }
    });
}
