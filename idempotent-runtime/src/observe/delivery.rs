//! The deliveries of the outbox.

use tracing::Span;

use super::{SPAN_LEVEL, Stopwatch};

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
        use super::catalogue::{DELIVERIES, DELIVERY};

        let result = match result {
            DeliveryResult::Delivered => "delivered",
            DeliveryResult::Retry => "retry",
            DeliveryResult::Dead => "dead",
            DeliveryResult::Late => "late",
        };
        let topic = topic.to_owned();
        metrics::counter!(DELIVERIES, "topic" => topic.clone(), "result" => result).increment(1);
        metrics::histogram!(DELIVERY, "topic" => topic).record(since.elapsed());
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (topic, result, since);
}
