//! [`Transaction`]: the database transaction in which a handler writes and the record is completed.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, OnceLock},
};

use serde::Serialize;
use sqlx::{Connection, Database};

use crate::{
    engine::core::{lease::Lease, slot::Slot},
    outbox::{EnqueueError, Message, MessageId},
    store::sql::TypedTransaction,
};

/// A database transaction that commits what the handler wrote together with the record, or neither: an argument of a
/// handler with the option [`transaction`](macro@crate::idempotent#transaction).
///
/// It stands for a connection of sqlx: any query runs on `&mut *tx`, and functions that take `&mut PgConnection` take
/// `&mut tx`. There is nothing to commit; the engine does it when the handler has returned:
///
/// - A response below 400 commits. 4xx, 5xx and a panic roll back, and are stored as outcomes.
/// - [`rollback_only`](Self::rollback_only) rolls back whatever the response is.
/// - [`begin`](Self::begin) makes a savepoint. After an error in PostgreSQL the transaction is of no use, unless a savepoint
///   around the statement is rolled back.
///
/// Its session is used again. Settings that a handler changes for it (`SET`, `SET ROLE`, `USE`, a `PRAGMA`) are set back before
/// the next transaction in PostgreSQL, and in MySQL where they are the default database, `foreign_key_checks` or
/// `unique_checks`; set back others yourself.
///
/// It begins after all arguments of the handler were extracted. As an extractor it rejects a request without a key with
/// `missing_key`; `Option<Transaction<…>>` is `None` there, and the handler has to write in another way.
///
/// # Panics
///
/// A use of it after the handler has returned, as in a task that the handler has started, panics.
///
/// # Cancellation
///
/// The handler is not cancelled by a client that leaves. What is still open when the handler has ended is rolled back:
/// do not keep a transaction in a task or a response body.
pub struct Transaction<Db: TransactionDatabase> {
    slot: Arc<Slot>,
    lease: Arc<Lease>,
    open: OnceLock<Box<dyn TypedTransaction<Db>>>,
}

/// The databases whose transactions can carry a record: [`sqlx::Postgres`], [`sqlx::MySql`] and [`sqlx::Sqlite`].
pub trait TransactionDatabase: Database + sealed::Sealed {
    /// Its name, as of its stores.
    #[doc(hidden)]
    const NAME: &'static str;
}

mod sealed {
    pub trait Sealed {}
}

#[cfg(feature = "sqlite")]
impl sealed::Sealed for sqlx::Sqlite {}
#[cfg(feature = "sqlite")]
impl TransactionDatabase for sqlx::Sqlite {
    const NAME: &'static str = "sqlite";
}
#[cfg(feature = "postgres")]
impl sealed::Sealed for sqlx::Postgres {}
#[cfg(feature = "postgres")]
impl TransactionDatabase for sqlx::Postgres {
    const NAME: &'static str = "postgres";
}
#[cfg(feature = "mysql")]
impl sealed::Sealed for sqlx::MySql {}
#[cfg(feature = "mysql")]
impl TransactionDatabase for sqlx::MySql {
    const NAME: &'static str = "mysql";
}

/// Why a handler's transaction is of the type of the argument.
const TYPED: &str = "the type of a transaction is checked when it is extracted";

impl<Db: TransactionDatabase> Transaction<Db> {
    /// A transaction that begins before it is used.
    #[cfg(feature = "axum")]
    pub(crate) fn new(slot: Arc<Slot>, lease: Arc<Lease>) -> Self {
        slot.hand_out();
        Self {
            slot,
            lease,
            open: OnceLock::new(),
        }
    }

    /// Begins a savepoint, which is rolled back unless it is committed.
    ///
    /// # Errors
    ///
    /// If the database refuses it.
    pub async fn begin(&mut self) -> Result<sqlx::Transaction<'_, Db>, sqlx::Error> {
        Connection::begin(&mut **self).await
    }

    /// Puts a message into the [outbox](crate::outbox), with this payload as JSON: it is delivered if the transaction
    /// commits, and only then.
    ///
    /// # Errors
    ///
    /// As [`enqueue_message`](Self::enqueue_message), or if the payload cannot be written as JSON.
    ///
    /// # Cancellation
    ///
    /// As [`enqueue_message`](Self::enqueue_message).
    pub async fn enqueue<T: Serialize + Sync + ?Sized>(
        &mut self,
        topic: &str,
        payload: &T,
    ) -> Result<MessageId, EnqueueError> {
        self.enqueue_message(Message::json(topic, payload)?).await
    }

    /// Puts this message into the [outbox](crate::outbox): it is delivered if the transaction commits, and only then.
    /// Returns the id with which it is delivered, which is the same on every attempt that puts its messages into the outbox
    /// in the same order.
    ///
    /// # Errors
    ///
    /// If the message breaks a [limit](crate::outbox#limits), or the database refuses it. After an error of the database
    /// nothing of the transaction is committed, also if the handler goes on: the request is answered with
    /// `transaction_failed`.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped before its end, nothing of the transaction is committed either.
    pub async fn enqueue_message(&mut self, message: Message) -> Result<MessageId, EnqueueError> {
        let (id, message) = message.prepare(&self.lease, self.slot.messages())?;
        self.slot.next_message();
        let open = self.open_mut();
        open.enqueue(&message)
            .await
            .map_err(EnqueueError::refused)?;
        self.slot.message_arrived();
        Ok(id)
    }

    /// Rolls everything back when the handler has returned, whatever it returns. A response that is stored is stored all the
    /// same. Messages in the outbox are rows of the transaction: they are not delivered.
    pub fn rollback_only(&mut self) {
        self.slot.rollback_only();
    }

    fn open(&self) -> &dyn TypedTransaction<Db> {
        &**self.open.get_or_init(|| {
            let open = self.slot.lend().unwrap_or_else(|why| panic!("{why}"));
            *open.into_any().downcast().expect(TYPED)
        })
    }

    fn open_mut(&mut self) -> &mut dyn TypedTransaction<Db> {
        self.open();
        &mut **self.open.get_mut().expect(TYPED)
    }
}

impl<Db: TransactionDatabase> Deref for Transaction<Db> {
    type Target = Db::Connection;

    fn deref(&self) -> &Db::Connection {
        self.open().connection()
    }
}

impl<Db: TransactionDatabase> DerefMut for Transaction<Db> {
    fn deref_mut(&mut self) -> &mut Db::Connection {
        self.open_mut().connection_mut()
    }
}

impl<Db: TransactionDatabase> Drop for Transaction<Db> {
    fn drop(&mut self) {
        let open = self.open.take().map(TypedTransaction::into_open);
        self.slot.give_back(open);
    }
}

impl<Db: TransactionDatabase> fmt::Debug for Transaction<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}
