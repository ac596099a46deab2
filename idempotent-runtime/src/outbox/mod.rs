//! The outbox: messages for other systems that are sent if a handler's transaction commits, and only then.
//!
//! A mail that a handler sends by itself goes out also if its transaction rolls back afterwards, and is lost if the process
//! crashes between the two. A handler with a [`Transaction`](crate::Transaction) therefore
//! [enqueues](crate::Transaction::enqueue) a message: a row that commits with its other rows and the record, or not at all. A
//! [`Relay`] delivers it afterwards, as often as it takes.
//!
//! ```no_run
//! # #[cfg(all(feature = "sqlite", feature = "macros", feature = "axum"))]
//! # mod example {
//! use std::time::Duration;
//! use axum::{Json, http::StatusCode};
//! use idempotent_runtime::{
//!     Idempotency, Transaction, idempotent, outbox::{Delivery, DeliveryError, EnqueueError, Relay}, store,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Receipt {
//!     to: String,
//! }
//!
//! #[idempotent(required, transaction)]
//! async fn order(mut tx: Transaction<sqlx::Sqlite>, Json(receipt): Json<Receipt>) -> Result<StatusCode, StatusCode> {
//!     // … rows by `&mut *tx`, and:
//!     let enqueued = tx.enqueue("receipt", &receipt).await;
//!     enqueued.map_err(|_: EnqueueError| StatusCode::INTERNAL_SERVER_ERROR)?;
//!     Ok(StatusCode::CREATED)
//! }
//!
//! async fn deliver(delivery: Delivery) -> Result<(), DeliveryError> {
//!     // What can never be delivered is dead at once. By `?` an error means: try again later.
//!     let receipt: Receipt = delivery.json().map_err(DeliveryError::dead)?;
//!     # async fn send(_: &str, _: &str) -> Result<(), std::io::Error> { Ok(()) }
//!     send(&receipt.to, delivery.id().as_str()).await?; // the id is the idempotency key for the mail service
//!     Ok(())
//! }
//!
//! # pub(crate) async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let store = store::migrate("sqlite://shop.db").await?; // makes the outbox beside the table of records
//! let idempotency = Idempotency::builder().store(store).install()?;
//! let relay = Relay::builder().start(&idempotency, deliver)?;
//! // … serve requests, then:
//! relay.stop(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! 1. **Both or neither.** A message is delivered if and only if the transaction commits, and with it the record. A response
//!    of 400 and above, a panic and [`rollback_only`](crate::Transaction::rollback_only) deliver nothing.
//! 2. **At least once.** A relay that ends between the delivery and its mark delivers again. The message has the same
//!    [id](Delivery::id) each time, as it has on every attempt of the handler: pass it on as the receiver's idempotency key,
//!    or let the receiver remember it. Then the effect happens once.
//! 3. **In order per key.** Messages of one record are delivered in the order in which they were enqueued, one after the
//!    other: while one fails, the later ones wait. [`Message::ordered_by`] chooses another key, such as an account; then
//!    handlers have to enqueue in the order that they want, as they do if each has locked the account's row before: two
//!    transactions that enqueue at the same time have no order. Messages of different keys do not wait for each other.
//! 4. **Any number of relays**, in any number of processes, share the work. A relay claims what it delivers. When it dies,
//!    its claims end after [`claim_for`](RelayBuilder::claim_for), and others deliver; when it comes back after that, its
//!    marks change nothing.
//! 5. **A message that cannot be delivered** is tried again after pauses that grow, and is [dead](DeadLetter) after
//!    [`max_attempts`](RelayBuilder::max_attempts), or at once where the delivery says so. Dead messages stay until they are
//!    [requeued](Outbox::requeue) or [discarded](Outbox::discard); the later ones of their key go on without them.
//! 6. **The payload is stored as responses are**: compressed and encrypted where the engine is told so.
//!
//! # Limits
//!
//! A topic has 1 to 128 bytes and no control characters, a payload at most [1 MiB](MAX_PAYLOAD), and an execution enqueues at
//! most 256 messages.
//!
//! # Caveats
//!
//! - The message id belongs to the record: after the record has expired, a request with the same key is another execution
//!   whose messages have the same ids. A receiver should remember ids no longer than records live.
//! - A message for a refused request (a 4xx) cannot be sent by the outbox, because the refusal rolls back.
//! - Messages that wait behind another one of their key are looked at by each claim: with tens of thousands behind one,
//!   claims become slow.
//! - In SQLite a claim takes the file's write lock, as every write.
//! - The outbox is a table beside that of the records, which `migrate()` makes. Processes of earlier versions neither use nor
//!   need it.

use std::{fmt, time::SystemTime};

use crate::{
    engine::Idempotency,
    observe::StoreOperation,
    store::{StoreError, StoreErrorKind, outbox::StoredMessage},
};

mod attempt;
mod delivery;
mod message;
mod relay;

pub use delivery::{Deliver, Delivery, DeliveryError};
#[cfg(feature = "sql")]
pub use message::EnqueueError;
#[cfg(feature = "sql")]
pub use message::Message;
pub use message::{MAX_PAYLOAD, MessageId};
pub use relay::{NotStarted, Relay, RelayBuilder, Relayed};

/// The dead messages of an engine's store. See the [module documentation](self).
#[derive(Debug)]
pub struct Outbox<'a> {
    engine: &'a Idempotency,
}

/// A message that is not delivered any more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its place in the outbox.
    pub number: i64,
    /// The message id.
    pub id: MessageId,
    /// The topic.
    pub topic: Box<str>,
    /// How often its delivery was tried.
    pub attempts: u32,
    /// When it was enqueued.
    pub created_at: SystemTime,
    /// Since when it is dead.
    pub died_at: SystemTime,
    /// The error of the last attempt.
    pub error: Option<Box<str>>,
}

impl Idempotency {
    /// The dead messages of this engine's store.
    #[must_use]
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox { engine: self }
    }
}

impl Outbox<'_> {
    /// Dead messages behind this [number](DeadLetter::number), at most `limit`, in the order in which they were enqueued. The
    /// first page is behind 0.
    ///
    /// # Errors
    ///
    /// If the store fails, or has no outbox ([`Refused`](StoreErrorKind::Refused)).
    pub async fn dead_letters(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let store = &self.engine.services().store;
        let dead = store.outbox(StoreOperation::DeadLetters, |outbox| {
            outbox.dead(after, limit)
        });
        let dead = dead.await.unwrap_or_else(|| Err(self.without_outbox()))?;
        Ok(dead.into_iter().map(DeadLetter::new).collect())
    }

    /// Has the message with this number delivered again, with all attempts before it. It is first in its order again, but
    /// later messages may have been delivered meanwhile. `false` if it is not dead.
    ///
    /// # Errors
    ///
    /// As [`dead_letters`](Self::dead_letters).
    pub async fn requeue(&self, number: i64) -> Result<bool, StoreError> {
        let store = &self.engine.services().store;
        let requeued = store.outbox(StoreOperation::Requeue, |outbox| outbox.requeue(number));
        requeued.await.unwrap_or_else(|| Err(self.without_outbox()))
    }

    /// Deletes the dead message with this number. `false` if it is not dead.
    ///
    /// # Errors
    ///
    /// As [`dead_letters`](Self::dead_letters).
    pub async fn discard(&self, number: i64) -> Result<bool, StoreError> {
        let store = &self.engine.services().store;
        let discarded = store.outbox(StoreOperation::Discard, |outbox| outbox.discard(number));
        discarded
            .await
            .unwrap_or_else(|| Err(self.without_outbox()))
    }

    fn without_outbox(&self) -> StoreError {
        let store = self.engine.services().store.store().name();
        let error = StoreError::new(store, StoreErrorKind::Refused);
        error.with_source("the store has no outbox: the SQL stores have one")
    }
}

impl DeadLetter {
    fn new(message: StoredMessage) -> Self {
        Self {
            number: message.number,
            id: MessageId::stored(message.id),
            topic: message.topic,
            attempts: message.attempt,
            created_at: message.created_at,
            died_at: message.due_at,
            error: message.last_error,
        }
    }
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "message {} of topic {:?}, dead after {} attempts",
            self.id, self.topic, self.attempts
        )?;
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}
