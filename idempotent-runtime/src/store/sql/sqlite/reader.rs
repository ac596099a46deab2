//! Reading beside the writer, which waits while a handler's transaction or another process has the file.
//!
//! In WAL mode nobody keeps a reader waiting. So duplicates of a request that has a transaction are answered as in flight,
//! and replays go on, for however long its handler runs.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions as _, Sqlite, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{sync::Mutex, time::timeout};

use super::{classify, identity::Identity, now};
use crate::{
    scope::StoreKey,
    store::{
        error::StoreError,
        record::{Acquisition, Claim, Record},
        sql::{dialect::Dialect as _, operations::Records, statements::Statements},
    },
};

/// How long an operation waits for the writer before the record is read beside it.
pub(super) const SOON: Duration = Duration::from_millis(25);
/// How long after that it is read again.
const LATER: Duration = Duration::from_millis(400);

/// Reads records.
pub(super) struct Reader {
    options: SqliteConnectOptions,
    identity: Identity,
    statements: Arc<Statements>,
    /// One look at a time, however many claims wait. No connection is here during a look: one that was given up is closed.
    connection: Mutex<Option<SqliteConnection>>,
}

impl Reader {
    pub(super) fn new(
        options: SqliteConnectOptions,
        identity: Identity,
        statements: Arc<Statements>,
    ) -> Self {
        Self {
            options,
            identity,
            statements,
            connection: Mutex::new(None),
        }
    }

    /// Waits for the writer, and reads the record meanwhile. `Err` is the writer's answer; with another one the claim is not
    /// executed.
    pub(super) async fn beside<A>(
        &self,
        claim: &Claim,
        turn: &Turn,
        acquiring: impl Future<Output = A>,
    ) -> Result<Acquisition, A> {
        let mut acquiring = pin!(acquiring);
        let mut pause = SOON;
        let mut waited = Duration::ZERO;
        loop {
            if let Ok(answer) = timeout(pause, &mut acquiring).await {
                return Err(answer);
            }
            waited += pause;
            pause = LATER;
            let found = self.look(claim, waited > LATER).await;
            if let Some(found) = found
                && turn.cancel()
            {
                return Ok(found);
            }
        }
    }

    /// The answer to a claim that waits, if the record alone decides it, or shows who keeps it waiting.
    ///
    /// An error is none of the claim's, which goes on waiting.
    async fn look(&self, claim: &Claim, behind_a_lock: bool) -> Option<Acquisition> {
        let mut place = self.connection.lock().await;
        let mut connection = self.taken(&mut place).await.ok()?;
        let mut records = Records::<Sqlite, _>::new(&mut connection, &self.statements, now());
        let found = if behind_a_lock {
            records.look_behind_the_lock(claim).await
        } else {
            records.look_decided(claim).await
        };
        *place = Some(connection);
        self.identity.check().ok()?;
        found
    }

    pub(super) async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let mut place = self.connection.lock().await;
        let mut connection = self.taken(&mut place).await.map_err(failed)?;
        let mut records = Records::<Sqlite, _>::new(&mut connection, &self.statements, now());
        let record = records.get(key).await?;
        *place = Some(connection);
        let checked = self.identity.check();
        checked.map_err(|error| failed(sqlx::Error::Io(error)))?;
        Ok(record)
    }

    async fn taken(
        &self,
        place: &mut Option<SqliteConnection>,
    ) -> Result<SqliteConnection, sqlx::Error> {
        if let Some(connection) = place.take() {
            return Ok(connection);
        }
        // SQLite deletes the WAL beside an empty file: where the file was moved away, that of its last commits.
        self.identity.check().map_err(sqlx::Error::Io)?;
        let options = self.options.clone().create_if_missing(false);
        options.connect().await
    }
}

fn failed(error: sqlx::Error) -> StoreError {
    StoreError::new(Sqlite::STORE, classify(&error).kind).with_source(error)
}

/// Whether a queued operation is executed, or was cancelled before that: never both.
#[derive(Default)]
pub(super) struct Turn(AtomicU8);

const QUEUED: u8 = 0;
const COME: u8 = 1;
const CANCELLED: u8 = 2;

impl Turn {
    /// The operation is executed now, or again; `false` if it was cancelled.
    pub(super) fn comes(&self) -> bool {
        self.leave_queue(COME) != CANCELLED
    }

    /// `true` if the operation is not executed.
    pub(super) fn cancel(&self) -> bool {
        self.leave_queue(CANCELLED) == CANCELLED
    }

    /// Returns what it has become.
    fn leave_queue(&self, to: u8) -> u8 {
        let left = self
            .0
            .compare_exchange(QUEUED, to, Ordering::SeqCst, Ordering::SeqCst);
        match left {
            Ok(_) => to,
            Err(found) => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_executed_or_cancelled() {
        let executed = Turn::default();
        assert!(executed.comes() && !executed.cancel() && executed.comes());
        let cancelled = Turn::default();
        assert!(cancelled.cancel() && !cancelled.comes() && cancelled.cancel());
    }
}
