//! Transactions that complete a record: what all databases have in common.
//!
//! 1. Complete: one statement in the transaction, fenced by the token and by a marker of the transaction that was begun.
//! 2. Only if it changed one row: COMMIT, in a message of its own.
//! 3. Anything else rolls back. If no row was changed, the record is read to say why.
//!
//! What differs is where a session comes from ([`Sessions`]): the pool of a server (`server`), or the one writer at a time of
//! a file.

use std::{any::Any, fmt, pin::Pin, sync::Arc, time::Duration};

use sqlx::Database;
use sqlx_core::transaction::TransactionManager;
use tokio::time::timeout;

use super::{
    TableName,
    dialect::{Dialect, Driver},
    error::timed_out,
    outbox::{self, NewMessage},
    statement::{Parameter, Statement, Value, Values},
};
use crate::store::{
    erased::Operation,
    error::{StoreError, StoreErrorKind},
    record::{Held, Outcome},
    token::Token,
    transaction::{CommitResult, Ending, GiveUp, InDoubt, OpenTransaction, Resolved},
};

#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) mod server;

/// A transaction of this kind of database.
pub(crate) trait TypedTransaction<Db: Database>: OpenTransaction + Sync {
    fn connection(&self) -> &Db::Connection;
    fn connection_mut(&mut self) -> &mut Db::Connection;
    /// Puts a message into the outbox.
    fn enqueue<'a>(&'a mut self, message: &'a NewMessage) -> Enqueuing<'a>;
    /// Without its type.
    fn into_open(self: Box<Self>) -> Box<dyn OpenTransaction>;
}

/// A message on its way into the outbox.
pub(crate) type Enqueuing<'a> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;

type Connection<S> = <<S as Sessions>::Database as Database>::Connection;
type Manager<S> = <<S as Sessions>::Database as Database>::TransactionManager;

/// Where the sessions of transactions come from.
pub(super) trait Sessions: Send + Sync + 'static {
    type Database: Dialect;
    /// A session; dropped, it is closed.
    type Session: AsRef<Connection<Self>> + AsMut<Connection<Self>> + Send + Sync + 'static;
    /// What is known of a session after it was lost.
    type Lost: fmt::Debug + Send + Sync + 'static;

    fn statements(&self) -> &Statements;

    /// How long a statement may take.
    fn time_out(&self) -> Duration;

    /// Removes the marker, where that is a statement; `false` if it is gone.
    fn unmark(
        &self,
        session: &mut Self::Session,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Whether the marker is there, as far as the database can tell a transaction that was committed from one that it rolled
    /// back by itself.
    fn is_whole(
        &self,
        session: &mut Self::Session,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// The marker, where it is part of the completion.
    fn marker(&self, session: &Self::Session) -> Marker;

    /// The time by this machine's clock, where the database has none.
    fn clock(&self) -> i64;

    /// The session is of use again: it has no transaction open.
    fn release(&self, session: Self::Session);

    /// Closes the session, and with it what it may have open. It is of no use any more: somebody else may have changed it,
    /// or put another connection in its place.
    fn close(&self, session: Self::Session);

    /// Whether the database takes a record with this outcome in one statement.
    fn fits(&self, outcome: &Outcome) -> bool;

    /// Whether a COMMIT of this session is one of the database that others see.
    ///
    /// # Errors
    ///
    /// If it is not, as in a file that was replaced.
    fn check(&self) -> Result<(), sqlx::Error>;

    /// What an error of the completion or of COMMIT means.
    fn refusal(&self, error: &sqlx::Error) -> Refusal;

    /// What is needed to end this session, should it be lost.
    fn lost(&self, session: &Self::Session) -> Self::Lost;

    /// Decides what became of a COMMIT that was not answered.
    fn resolve(
        &self,
        lost: &Self::Lost,
        held: &Held,
        by: GiveUp,
    ) -> impl Future<Output = Result<Resolved, StoreError>> + Send;
}

/// Tells one transaction from all others.
pub(super) type Marker = [u8; 16];

/// The statements of transactions.
pub(super) struct Statements {
    complete: Statement,
    owner: Statement,
    enqueue: Statement,
    #[cfg_attr(
        not(feature = "sqlite"),
        expect(dead_code, reason = "servers give up by the store's own")
    )]
    give_up: [Statement; 2],
}

/// Who has a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    token: Token,
    in_flight: bool,
}

/// What an error of the completion or of COMMIT means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is rolled back for good: a check at the end of the transaction failed, or an earlier statement of it.
    Final,
    /// It is rolled back, and may succeed when it is executed again.
    Retry,
    /// Nobody knows.
    Unanswered,
}

impl Statements {
    /// `marked` is the condition that the transaction still is the one that was begun, where that is no statement of its own.
    pub(super) fn new<D: Dialect>(table: &TableName, marked: &str) -> Self {
        let statement = |file: &str| D::SYNTAX.statement(file, table);
        let complete = concat!(include_str!("../shared/complete.sql"), "\n").to_owned() + marked;
        Self {
            complete: statement(&complete),
            owner: statement(include_str!("../shared/owner.sql")),
            enqueue: outbox::enqueue::<D>(table),
            give_up: [
                statement(include_str!("../shared/release.sql")),
                statement(include_str!("../shared/abandon.sql")),
            ],
        }
    }

    /// Gives the record up, if it is in flight under the token.
    #[cfg(feature = "sqlite")]
    pub(super) fn give_up(&self, by: GiveUp) -> &Statement {
        let [release, abandon] = &self.give_up;
        match by {
            GiveUp::Release => release,
            GiveUp::Abandon => abandon,
        }
    }

    /// Who has the record.
    pub(super) async fn owner<D: Driver>(
        &self,
        connection: &mut D::Connection,
        held: &Held,
    ) -> Result<Option<Owner>, sqlx::Error> {
        let values = Values::new().key(&held.key);
        let rows = D::fetch(connection, &self.owner, &values).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let token = D::bytes(row, 0)?.unwrap_or_default();
        Ok(Some(Owner {
            // Another length is that of no token of ours.
            token: Token::from_bytes(token.try_into().unwrap_or_default()),
            in_flight: D::int(row, 1)? == 0,
        }))
    }
}

impl Owner {
    /// What became of a COMMIT if the record could not be given up as in flight under its token.
    pub(super) fn resolved(owner: Option<Self>, held: &Held) -> Resolved {
        match owner {
            None => Resolved::Missing,
            Some(owner) if owner.token == held.token => Resolved::Committed,
            Some(_) => Resolved::Fenced,
        }
    }
}

/// A transaction that was begun.
pub(super) struct Open<S: Sessions> {
    pub(super) session: S::Session,
    pub(super) sessions: Arc<S>,
}

/// Whether the record was completed.
enum Completion {
    /// So many rows were changed.
    Changed(u64),
    /// Nothing was sent, because of this.
    NotOurs(&'static str),
}

/// The marker of the transaction is gone.
const ENDED: &str = "the handler's transaction ended before the handler did, by a COMMIT or ROLLBACK of its own, by a \
                     statement that commits implicitly, or by an error after which the database rolls back, such as a \
                     deadlock";
/// The completion changed no row, and nobody says why.
const UNREAD: &str = "the record could not be completed in the handler's transaction, and the reason could not be read";
const LEFT_OPEN: &str = "the handler has left a savepoint open";
/// sqlx knows of no transaction on the connection.
const SWAPPED: &str = "the connection of the handler's transaction has no transaction any more: another connection was put \
                       in its place, or beginning a savepoint was cancelled half-way";

impl<S: Sessions> Open<S> {
    async fn commit_now(mut self, held: Held, outcome: Outcome) -> CommitResult {
        let limit = self.sessions.time_out();
        match timeout(limit, self.complete(&held, &outcome)).await {
            Ok(Ok(Completion::Changed(0))) => self.why_unchanged(&held).await,
            Ok(Ok(Completion::Changed(_))) => self.send_commit(held).await,
            Ok(Ok(Completion::NotOurs(found))) => {
                self.sessions.close(self.session);
                CommitResult::NotOurs { found }
            }
            // COMMIT was not sent.
            Ok(Err(error)) => {
                let retry = self.sessions.refusal(&error) != Refusal::Final;
                self.roll_back_now().await;
                rolled_back(error, retry)
            }
            Err(elapsed) => rolled_back(timed_out(elapsed), true),
        }
    }

    /// Completes the record, if the transaction still is the one that was begun.
    async fn complete(
        &mut self,
        held: &Held,
        outcome: &Outcome,
    ) -> Result<Completion, sqlx::Error> {
        if !self.sessions.unmark(&mut self.session).await? {
            return Ok(Completion::NotOurs(ENDED));
        }
        // After the statement: a savepoint that was dropped is rolled back in front of it.
        match Manager::<S>::get_transaction_depth(self.session.as_ref()) {
            1 => {}
            0 => return Ok(Completion::NotOurs(SWAPPED)),
            _ => return Ok(Completion::NotOurs(LEFT_OPEN)),
        }
        let marker = self.sessions.marker(&self.session);
        let values = Values::new()
            .key(&held.key)
            .token(Parameter::Token, Some(&held.token))
            .completed(held, outcome)
            .with(Parameter::Marker, Value::Bytes(Some(&marker)))
            .int(Parameter::Clock, self.sessions.clock());
        let statement = &self.sessions.statements().complete;
        let done = S::Database::execute(self.session.as_mut(), statement, &values).await?;
        Ok(Completion::Changed(done))
    }

    async fn send_commit(mut self, held: Held) -> CommitResult {
        if let Err(error) = self.sessions.check() {
            self.sessions.close(self.session);
            return rolled_back(error, true);
        }
        let limit = self.sessions.time_out();
        let lost = self.sessions.lost(&self.session);
        let committed = timeout(limit, Manager::<S>::commit(self.session.as_mut())).await;
        let error = match committed {
            Ok(Ok(())) => match self.sessions.check() {
                Ok(()) => {
                    self.sessions.release(self.session);
                    return CommitResult::Committed;
                }
                Err(error) => error,
            },
            Ok(Err(error)) => error,
            Err(elapsed) => timed_out(elapsed),
        };
        let refusal = self.sessions.refusal(&error);
        if refusal == Refusal::Unanswered {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "COMMIT was not answered");
            let Self { session, sessions } = self;
            drop(session);
            return CommitResult::InDoubt(Box::new(Doubt {
                sessions,
                lost,
                held,
            }));
        }
        self.roll_back_now().await;
        rolled_back(error, refusal == Refusal::Retry)
    }

    /// The completion changed no row: rolls back, and reads the record. Without an answer, the handler may have committed
    /// by itself: the key is not released.
    async fn why_unchanged(mut self, held: &Held) -> CommitResult {
        let limit = self.sessions.time_out();
        let asked = async {
            Manager::<S>::rollback(self.session.as_mut()).await?;
            let statements = self.sessions.statements();
            statements
                .owner::<S::Database>(self.session.as_mut(), held)
                .await
        };
        let error = match timeout(limit, asked).await {
            Ok(Ok(owner)) => {
                // In MySQL the read has begun a transaction.
                self.sessions.close(self.session);
                return match owner {
                    None => CommitResult::Missing,
                    Some(owner) if owner.token == held.token && owner.in_flight => {
                        CommitResult::NotOurs { found: ENDED }
                    }
                    Some(_) => CommitResult::Fenced,
                };
            }
            Ok(Err(error)) => error,
            Err(elapsed) => timed_out(elapsed),
        };
        let error = &error as &dyn std::error::Error;
        tracing::error!(
            error,
            "the record could not be read after its completion changed nothing"
        );
        CommitResult::NotOurs { found: UNREAD }
    }

    /// Rolls back, if the marker is there. A connection that is broken has rolled back.
    async fn roll_back_whole(mut self) -> Result<(), &'static str> {
        let limit = self.sessions.time_out();
        let whole = timeout(limit, self.sessions.is_whole(&mut self.session)).await;
        if matches!(whole, Ok(Ok(false))) {
            self.sessions.close(self.session);
            return Err(ENDED);
        }
        self.roll_back_now().await;
        Ok(())
    }

    /// Rolls back. A session that does not answer is closed instead, which ends its transaction too.
    async fn roll_back_now(mut self) {
        let limit = self.sessions.time_out();
        let rolled_back = async {
            let mut ours = false;
            while Manager::<S>::get_transaction_depth(self.session.as_ref()) > 0 {
                Manager::<S>::rollback(self.session.as_mut()).await?;
                ours = true;
            }
            Ok::<bool, sqlx::Error>(ours)
        };
        match timeout(limit, rolled_back).await {
            Ok(Ok(true)) => self.sessions.release(self.session),
            // It has no transaction: nobody knows whose connection it is.
            Ok(Ok(false)) => self.sessions.close(self.session),
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "a transaction is rolled back by closing its session");
            }
            Err(_) => tracing::warn!("a rollback was not answered: its session is closed"),
        }
    }
}

fn rolled_back(error: sqlx::Error, retry: bool) -> CommitResult {
    CommitResult::RolledBack {
        source: error.into(),
        retry,
    }
}

/// The error of an operation.
pub(super) fn store_error<D: Dialect>(error: sqlx::Error) -> StoreError {
    let kind = match &error {
        // A connection that could not be made.
        sqlx::Error::Database(_) => D::classify(&error).kind,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(D::STORE, kind).with_source(error)
}

impl<S: Sessions> OpenTransaction for Open<S> {
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        let typed: Box<dyn TypedTransaction<S::Database>> = self;
        Box::new(typed)
    }

    fn commit(self: Box<Self>, held: Held, outcome: Outcome) -> Ending<CommitResult> {
        if self.sessions.fits(&outcome) {
            Box::pin(self.commit_now(held, outcome))
        } else {
            Box::pin(async { CommitResult::TooLarge(self) })
        }
    }

    fn roll_back(self: Box<Self>) -> Ending<()> {
        Box::pin(self.roll_back_now())
    }

    fn roll_back_to_release(self: Box<Self>) -> Ending<Result<(), &'static str>> {
        Box::pin(self.roll_back_whole())
    }
}

impl<S: Sessions> fmt::Debug for Open<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

impl<S: Sessions> TypedTransaction<S::Database> for Open<S> {
    fn connection(&self) -> &Connection<S> {
        self.session.as_ref()
    }

    fn connection_mut(&mut self) -> &mut Connection<S> {
        self.session.as_mut()
    }

    fn enqueue<'a>(&'a mut self, message: &'a NewMessage) -> Enqueuing<'a> {
        Box::pin(async move {
            let values = message.values(self.sessions.clock());
            let statement = &self.sessions.statements().enqueue;
            S::Database::execute(self.session.as_mut(), statement, &values).await?;
            Ok(())
        })
    }

    fn into_open(self: Box<Self>) -> Box<dyn OpenTransaction> {
        self
    }
}

/// A COMMIT that was not answered.
struct Doubt<S: Sessions> {
    sessions: Arc<S>,
    lost: S::Lost,
    held: Held,
}

impl<S: Sessions> InDoubt for Doubt<S> {
    fn resolve(&mut self, by: GiveUp) -> Operation<'_, Resolved> {
        Box::pin(self.sessions.resolve(&self.lost, &self.held, by))
    }
}

impl<S: Sessions> fmt::Debug for Doubt<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doubt")
            .field("session", &self.lost)
            .finish_non_exhaustive()
    }
}
