//! What a relay hands to the application, and what the application says of it.

use std::{
    fmt,
    future::Future,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::message::MessageId;
use crate::boxes::BoxError;

/// A message on its way to its receiver.
#[derive(Clone)]
pub struct Delivery {
    pub(super) id: MessageId,
    pub(super) topic: Box<str>,
    pub(super) payload: Bytes,
    pub(super) attempt: u32,
    pub(super) created_at: SystemTime,
}

impl Delivery {
    /// The message id, to pass on as the receiver's idempotency key: the same each time that the message is delivered.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// The topic that it was enqueued with.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The payload that it was enqueued with.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The payload, read as JSON.
    ///
    /// # Errors
    ///
    /// If it is not JSON of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }

    /// The number of this attempt to deliver it: 1 for the first. Attempts of relays that died count, and those that were cut
    /// off when a relay was stopped do not. So the receiver may have seen it before, whatever the number is.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When it was enqueued, by the store's clock.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        self.created_at
    }
}

/// Without the payload, which may be personal.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("topic", &self.topic)
            .field("bytes", &self.payload.len())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Delivers messages: an async function of [`Delivery`], or a type of your own.
///
/// # Cancellation
///
/// A delivery is dropped when its [time-out](super::RelayBuilder::time_out) or its claim ends, or at the deadline of
/// [`Relay::stop`](super::Relay::stop), and the message is delivered again.
pub trait Deliver: Send + Sync + 'static {
    /// Delivers the message, or says why not.
    ///
    /// # Errors
    ///
    /// Whether to [try again](DeliveryError::retry) or [never again](DeliveryError::dead).
    fn deliver(&self, delivery: Delivery)
    -> impl Future<Output = Result<(), DeliveryError>> + Send;
}

impl<F, R> Deliver for F
where
    F: Fn(Delivery) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), DeliveryError>> + Send,
{
    fn deliver(
        &self,
        delivery: Delivery,
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send {
        self(delivery)
    }
}

/// Why a message was not delivered, and what to do about it. By `?`, every other error becomes one that is tried again.
pub struct DeliveryError {
    pub(super) error: BoxError,
    pub(super) then: Then,
}

/// What to do with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Retry,
    RetryAfter(Duration),
    Bury,
}

impl DeliveryError {
    /// The delivery may succeed later.
    pub fn retry(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            error: error.into(),
            then: Then::Retry,
        }
    }

    /// The same, but not before this time has passed, as a receiver's `Retry-After` says.
    pub fn retry_after(
        time: Duration,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            error: error.into(),
            then: Then::RetryAfter(time),
        }
    }

    /// The delivery never succeeds: the message is dead.
    pub fn dead(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            error: error.into(),
            then: Then::Bury,
        }
    }
}

/// For `?`. That is why this is no error itself.
impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for DeliveryError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl fmt::Debug for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.then, self.error)
    }
}
