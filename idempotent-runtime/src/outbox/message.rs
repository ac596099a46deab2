//! What a handler puts into the outbox.

#[cfg(feature = "sql")]
use std::error::Error;
use std::fmt;

#[cfg(feature = "sql")]
use bytes::Bytes;
#[cfg(feature = "sql")]
use serde::Serialize;

#[cfg(feature = "sql")]
use crate::{
    digest::Framed, engine::core::lease::Lease, response::Binding, store::sql::NewMessage,
};

/// The largest payload of a message, in bytes.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// The longest topic, in bytes.
#[cfg(feature = "sql")]
const MAX_TOPIC: usize = 128;
/// The most messages of one execution.
#[cfg(feature = "sql")]
const MAX_MESSAGES: u32 = 256;

/// The identity of a message: a UUID of version 8, the same each time it is delivered, and on every attempt of the handler.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(Box<str>);

impl MessageId {
    /// As the store has it.
    pub(super) fn stored(id: Box<str>) -> Self {
        Self(id)
    }

    /// The 36 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message for the outbox. See [`Transaction::enqueue_message`](crate::Transaction::enqueue_message).
#[cfg(feature = "sql")]
#[derive(Clone)]
#[must_use = "a message is delivered if it is enqueued"]
pub struct Message {
    topic: Box<str>,
    payload: Bytes,
    order: Option<Box<str>>,
}

/// Why a message was not put into the outbox.
#[cfg(feature = "sql")]
#[derive(Debug)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The topic is empty, longer than 128 bytes, or contains a control character.
    Topic {
        /// The topic.
        topic: Box<str>,
    },
    /// The payload is larger than [`MAX_PAYLOAD`].
    TooLarge {
        /// How many bytes it has.
        bytes: usize,
    },
    /// The execution has enqueued 256 messages already.
    TooMany,
    /// The payload could not be written as JSON.
    NotSerializable(serde_json::Error),
    /// The database refused the message. Nothing of the transaction is committed.
    Database(sqlx::Error),
}

#[cfg(feature = "sql")]
impl Message {
    /// A message with this payload as JSON.
    ///
    /// # Errors
    ///
    /// If the payload cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(topic: &str, payload: &T) -> Result<Self, EnqueueError> {
        let payload = serde_json::to_vec(payload).map_err(EnqueueError::NotSerializable)?;
        Ok(Self::bytes(topic, payload))
    }

    /// A message with these bytes as its payload.
    pub fn bytes(topic: &str, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            order: None,
        }
    }

    /// Delivers this message after all earlier ones with the same key, whichever request enqueued them: the number of an
    /// account, for example. Unless set, a message is in order with the others of its request. The key itself is not stored.
    pub fn ordered_by(mut self, key: &str) -> Self {
        self.order = Some(key.into());
        self
    }

    /// What is stored of the message with this number among those of its execution.
    pub(crate) fn prepare(
        self,
        lease: &Lease,
        number: u32,
    ) -> Result<(MessageId, NewMessage), EnqueueError> {
        let Self {
            topic,
            payload,
            order,
        } = self;
        if topic.is_empty() || topic.len() > MAX_TOPIC || topic.contains(char::is_control) {
            return Err(EnqueueError::Topic { topic });
        }
        if payload.len() > MAX_PAYLOAD {
            let bytes = payload.len();
            return Err(EnqueueError::TooLarge { bytes });
        }
        if number >= MAX_MESSAGES {
            return Err(EnqueueError::TooMany);
        }
        let services = lease.services();
        let record = lease.held().key;
        let id: Box<str> = services.digester.message_id(record, number).into();
        let binding = Binding::of_message(&id, &topic);
        let message = NewMessage {
            id: id.clone(),
            order_key: order.map_or(*record.as_bytes(), |key| order_key(&key)),
            payload: services.sealer.seal_bytes(&payload, &binding),
            topic,
        };
        Ok((MessageId(id), message))
    }
}

/// Not keyed with the engine's secret: messages stay in order while it is rotated.
#[cfg(feature = "sql")]
fn order_key(key: &str) -> [u8; 32] {
    let mut digest = Framed::sha256("idempotent/order-key/v1");
    digest.part(key.as_bytes());
    digest.finish()
}

/// Without the payload, which may be personal.
#[cfg(feature = "sql")]
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "sql")]
impl EnqueueError {
    pub(crate) fn refused(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

#[cfg(feature = "sql")]
impl fmt::Display for EnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic { topic } => write!(
                f,
                "the topic {topic:?} is not valid: write 1 to {MAX_TOPIC} bytes without control characters"
            ),
            Self::TooLarge { bytes } => write!(
                f,
                "the payload has {bytes} bytes, and a message has at most {MAX_PAYLOAD}: keep the data elsewhere, and send \
                 where it is"
            ),
            Self::TooMany => write!(
                f,
                "the execution has put {MAX_MESSAGES} messages into the outbox, which is the most: put several into one"
            ),
            Self::NotSerializable(_) => f.write_str("the payload could not be written as JSON"),
            Self::Database(_) => f.write_str(
                "the database refused the message: if the table of the outbox is missing, create it with `migrate()`",
            ),
        }
    }
}

#[cfg(feature = "sql")]
impl Error for EnqueueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotSerializable(error) => Some(error),
            Self::Database(error) => Some(error),
            Self::Topic { .. } | Self::TooLarge { .. } | Self::TooMany => None,
        }
    }
}
