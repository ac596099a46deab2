//! [`OutboxStore`]: messages that were committed with a record, until they are delivered.
//!
//! A handler's [`Transaction`](crate::Transaction) [puts messages](crate::outbox) into the outbox; a
//! [relay](crate::outbox::Relay) claims, delivers and marks them.
//!
//! # The rules
//!
//! 1. **A message is there if its transaction is committed**, and only then.
//! 2. **A claim is a lease.** It takes pending messages that are due, at most as many as it is told, gives each the claim's
//!    token, counts an attempt, and makes it due again when the claim ends. Of two claims at the same time one gets a
//!    message. A message of which an earlier one of the same order is pending is not claimed: that one comes first.
//! 3. **A mark is fenced.** It applies only while the message has the token of the claim under which it was delivered, and
//!    is pending; otherwise nothing changes and the answer is `false`. A mark that is repeated answers as the first one did,
//!    except that of a retry whose message has been claimed again.
//! 4. **The store's clock decides** what is due.
//! 5. **The payload is opaque**: the engine seals it as it seals responses.
//!
//! A store offers the trait through [`Store::outbox`](super::Store::outbox); a wrapper passes the inner store's on. The SQL
//! stores do.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{erased::Operation, token::Token};

/// Keeps messages until they are delivered. See the [module documentation](self) for the rules.
///
/// Object-safe: [`Store::outbox`](super::Store::outbox) gives it. A method is implemented as `Box::pin(async move { … })`.
pub trait OutboxStore: Send + Sync {
    /// Claims messages that are due, in the order in which they became due.
    ///
    /// # Errors
    ///
    /// When the store fails: then messages may have been claimed, and are due again when the claim ends.
    fn claim<'a>(&'a self, claim: &'a MessageClaim) -> Operation<'a, Vec<StoredMessage>>;

    /// Marks a claimed message; `false` if it was not the claim's any more.
    ///
    /// # Errors
    ///
    /// When the store fails: then it may be marked or not, and a repetition finds out.
    fn mark<'a>(&'a self, mark: &'a Mark) -> Operation<'a, bool>;

    /// Deletes at most so many delivered messages that were kept for long enough, and says how many.
    ///
    /// # Errors
    ///
    /// When the store fails.
    fn purge_delivered(&self, limit: usize) -> Operation<'_, usize>;

    /// Dead messages with a greater number than this, at most `limit`, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// When the store fails.
    fn dead(&self, after: i64, limit: usize) -> Operation<'_, Vec<StoredMessage>>;

    /// Makes a dead message pending again, with no attempts so far; `false` if it is not dead.
    ///
    /// # Errors
    ///
    /// When the store fails: then it may be pending, and a repetition answers `false`.
    fn requeue(&self, number: i64) -> Operation<'_, bool>;

    /// Deletes a dead message; `false` if it is not dead.
    ///
    /// # Errors
    ///
    /// When the store fails.
    fn discard(&self, number: i64) -> Operation<'_, bool>;
}

/// A claim of messages.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MessageClaim {
    /// Its random identity.
    pub token: Token,
    /// How long it lasts.
    pub lease: Duration,
    /// The most messages that it takes.
    pub limit: usize,
}

impl MessageClaim {
    /// A claim.
    #[must_use]
    pub fn new(token: Token, lease: Duration, limit: usize) -> Self {
        Self {
            token,
            lease,
            limit,
        }
    }
}

/// A message as the store keeps it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredMessage {
    /// Its place in the outbox.
    pub number: i64,
    /// The message id.
    pub id: Box<str>,
    /// The topic.
    pub topic: Box<str>,
    /// The payload, sealed.
    pub payload: Bytes,
    /// How often it was claimed, this time included.
    pub attempt: u32,
    /// When it was put into the outbox.
    pub created_at: SystemTime,
    /// When its claim ends; of a dead one, since when it is dead.
    pub due_at: SystemTime,
    /// The error of the last attempt that failed.
    pub last_error: Option<Box<str>>,
}

/// What is known of a message after its delivery was tried.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mark {
    /// The message's place in the outbox.
    pub number: i64,
    /// The token of the claim.
    pub token: Token,
    /// What the message becomes.
    pub state: MessageState,
    /// Why it was not delivered.
    pub error: Option<Box<str>>,
}

impl Mark {
    /// A mark of this message, which was claimed with this token.
    #[must_use]
    pub fn new(number: i64, token: Token, state: MessageState, error: Option<Box<str>>) -> Self {
        Self {
            number,
            token,
            state,
            error,
        }
    }
}

/// What a message becomes when its delivery was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// Still to be delivered, after this time.
    Pending(Duration),
    /// Still to be delivered, at once. So many of its attempts count: the last one was cut off.
    CutOff(u32),
    /// Delivered, and to be deleted after this time.
    Delivered(Duration),
    /// Not to be delivered any more.
    Dead,
}
