//! Transactions of handlers in an SQLite file.
//!
//! One at a time, in each process first come, first served ([`Gate`]): the transaction has the file's write lock from its
//! first statement on. The marker is a savepoint at its beginning, which ends with the transaction.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, SqlStr, Sqlite, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteTransactionManager},
};
use sqlx_core::transaction::TransactionManager as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    identity::Identity,
    now,
    open::{BUSY, configure},
    primary_code,
};
use crate::store::{
    erased::Operation,
    error::StoreError,
    record::{Held, Outcome},
    sql::{
        TableName,
        dialect::{Dialect as _, Driver as _},
        error::timed_out,
        statement::{Parameter, Values},
        transaction::{Marker, Open, Owner, Refusal, Sessions, Statements, store_error},
    },
    transaction::{GiveUp, OpenTransaction, Resolved, Transactions},
};

const BEGIN: SqlStr = SqlStr::from_static("begin immediate");
const MARK: &str = "savepoint idempotent_transaction";
const UNMARK: &str = "release idempotent_transaction";

/// The turns in which the writer and the transactions of one process use the write lock. It is never closed.
pub(super) type Gate = Arc<Semaphore>;

pub(super) fn gate() -> Gate {
    Arc::new(Semaphore::new(1))
}

/// Begins transactions.
#[derive(Clone)]
pub(super) struct SqliteTransactions(Arc<File>);

struct File {
    options: SqliteConnectOptions,
    statements: Statements,
    gate: Gate,
    /// The file that the writer has open.
    identity: OnceLock<Identity>,
    /// The connection of the last transaction.
    idle: Mutex<Option<SqliteConnection>>,
}

/// The connection of a transaction, and its turn.
struct Session {
    connection: SqliteConnection,
    turn: OwnedSemaphorePermit,
}

impl SqliteTransactions {
    pub(super) fn new(options: SqliteConnectOptions, table: &TableName, gate: Gate) -> Self {
        Self(Arc::new(File {
            options,
            statements: Statements::new::<Sqlite>(table, ""),
            gate,
            identity: OnceLock::new(),
            idle: Mutex::new(None),
        }))
    }

    /// No transaction is acknowledged that is not in this file.
    pub(super) fn identify(&self, identity: Identity) {
        // A store has one file, and is opened once.
        let _ = self.0.identity.set(identity);
    }

    pub(super) fn options(&self) -> SqliteConnectOptions {
        self.0.options.clone()
    }

    pub(super) fn gate(&self) -> Gate {
        Arc::clone(&self.0.gate)
    }
}

impl File {
    /// A transaction that has the write lock.
    async fn locked(&self) -> Result<Session, sqlx::Error> {
        let turn = Arc::clone(&self.gate).acquire_owned().await;
        let turn = turn.map_err(|_closed| sqlx::Error::PoolClosed)?;
        let idle = self.idle().take();
        let mut connection = if let Some(connection) = idle {
            connection
        } else {
            // SQLite deletes the WAL beside an empty file: where the file was moved away, that of its last commits.
            self.check()?;
            let options = self.options.clone().create_if_missing(false);
            let mut connection = options.connect().await?;
            configure(&mut connection).await?;
            connection
        };
        SqliteTransactionManager::begin(&mut connection, Some(BEGIN)).await?;
        // The connection may be one to a file that came in the place of the writer's.
        self.check()?;
        Ok(Session { connection, turn })
    }

    fn idle(&self) -> MutexGuard<'_, Option<SqliteConnection>> {
        // A connection is there or not, whenever the lock is free.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(self: Arc<Self>) -> Result<Open<Self>, sqlx::Error> {
        let mut session = self.locked().await?;
        sqlx::query(MARK).execute(&mut session.connection).await?;
        Ok(Open {
            session,
            sessions: self,
        })
    }

    async fn decide(&self, held: &Held, by: GiveUp) -> Result<Resolved, sqlx::Error> {
        let mut session = self.locked().await?;
        let values = Values::new()
            .key(&held.key)
            .token(Parameter::Token, Some(&held.token))
            .int(Parameter::Clock, now());
        let (connection, statements) = (&mut session.connection, &self.statements);
        let given_up = Sqlite::execute(connection, statements.give_up(by), &values).await?;
        let owner = statements.owner::<Sqlite>(connection, held).await?;
        SqliteTransactionManager::commit(connection).await?;
        self.check()?;
        self.release(session);
        Ok(match given_up {
            0 => Owner::resolved(owner, held),
            _ => Resolved::RolledBack,
        })
    }
}

impl Transactions for SqliteTransactions {
    fn begin(&self, _: Duration) -> Operation<'_, Box<dyn OpenTransaction>> {
        let file = Arc::clone(&self.0);
        Box::pin(async move {
            let begun = file.begin().await.map_err(store_error::<Sqlite>)?;
            let open: Box<dyn OpenTransaction> = Box::new(begun);
            Ok(open)
        })
    }

    fn database(&self) -> &'static str {
        Sqlite::STORE
    }

    fn allows_renewals(&self) -> bool {
        false
    }
}

impl Sessions for File {
    type Database = Sqlite;
    type Session = Session;
    type Lost = ();

    fn statements(&self) -> &Statements {
        &self.statements
    }

    fn time_out(&self) -> Duration {
        BUSY
    }

    async fn unmark(&self, session: &mut Session) -> Result<bool, sqlx::Error> {
        let unmarked = sqlx::query(UNMARK).execute(&mut session.connection).await;
        match unmarked {
            Ok(_) => Ok(true),
            // "no such savepoint".
            Err(error) if primary_code(&error) == Some(1) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// After some errors SQLite rolls back by itself, and the savepoint is gone as it is after a COMMIT.
    async fn is_whole(&self, _: &mut Session) -> Result<bool, sqlx::Error> {
        Ok(true)
    }

    fn marker(&self, _: &Session) -> Marker {
        Marker::default()
    }

    fn clock(&self) -> i64 {
        now()
    }

    fn release(&self, session: Session) {
        let Session { connection, turn } = session;
        *self.idle() = Some(connection);
        drop(turn);
    }

    fn close(&self, session: Session) {
        drop(session);
    }

    /// Its largest value has a gigabyte.
    fn fits(&self, _: &Outcome) -> bool {
        true
    }

    fn check(&self) -> Result<(), sqlx::Error> {
        match self.identity.get() {
            Some(identity) => identity.check().map_err(sqlx::Error::Io),
            None => Ok(()),
        }
    }

    fn refusal(&self, error: &sqlx::Error) -> Refusal {
        // Of <https://www.sqlite.org/rescode.html>: busy, locked and interrupted; I/O, corruption, a file that is none.
        match primary_code(error) {
            Some(5 | 6 | 9) => Refusal::Retry,
            Some(10 | 11 | 26) | None => Refusal::Unanswered,
            Some(_) => Refusal::Final,
        }
    }

    fn lost(&self, _: &Session) {}

    /// Waits for its turn no longer than for anything else: the client of the transaction waits too.
    async fn resolve(&self, (): &(), held: &Held, by: GiveUp) -> Result<Resolved, StoreError> {
        let decided = timeout(BUSY, self.decide(held, by)).await;
        let decided = decided.unwrap_or_else(|elapsed| Err(timed_out(elapsed)));
        decided.map_err(store_error::<Sqlite>)
    }
}

impl AsRef<SqliteConnection> for Session {
    fn as_ref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl AsMut<SqliteConnection> for Session {
    fn as_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl fmt::Debug for SqliteTransactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTransactions").finish_non_exhaustive()
    }
}
