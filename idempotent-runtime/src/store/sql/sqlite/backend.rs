//! What the store asks of the writer, as operations in its queue and their answers.

use std::{pin::pin, sync::Arc};

use sqlx::Sqlite;
use tokio::time::timeout;

use super::{
    reader::{SOON, Turn},
    writer::{Answer, Operation, Writer},
};
use crate::{
    scope::StoreKey,
    store::{
        error::{StoreError, StoreErrorKind},
        inspect::{Cursor, Page, Query, Stats},
        record::{Acquisition, Claim, Record, Write},
        sql::{
            admin::{Act, Told},
            dialect::{Backend, Dialect as _},
            operations::Change,
            outbox::{OutboxAct, OutboxAnswer},
        },
        steps::StepsRead,
        token::Token,
        transaction::Transactions,
        wake::Wake,
    },
};

impl Backend for Writer {
    /// The record is read while the writer waits for the file, which a handler's transaction may have for long.
    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        let turn = Arc::new(Turn::default());
        let acquiring = self.run_in_turn(Operation::Acquire(claim.clone()), Arc::clone(&turn));
        match self.reader.beside(claim, &turn, acquiring).await {
            Ok(found) => Ok(found),
            Err(answer) => match answer? {
                Answer::Acquisition(acquisition) => Ok(acquisition),
                _ => Err(unexpected_answer()),
            },
        }
    }

    async fn write(&self, change: Change<'_>) -> Result<Write, StoreError> {
        let operation = match change {
            Change::Renew(held) => Operation::Renew(*held),
            Change::Complete(held, outcome) => Operation::Complete(*held, outcome.clone()),
            Change::Release(key, token) => Operation::Release(*key, *token),
            Change::Abandon(key, token) => Operation::Abandon(*key, *token),
        };
        match self.run(operation).await? {
            Answer::Write(write) => Ok(write),
            _ => Err(unexpected_answer()),
        }
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let got = pin!(self.run(Operation::Get(*key)));
        match timeout(SOON, got).await {
            Ok(answer) => match answer? {
                Answer::Record(record) => Ok(record),
                _ => Err(unexpected_answer()),
            },
            Err(_elapsed) => self.reader.get(key).await,
        }
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        match self.run(Operation::Purge(limit)).await? {
            Answer::Purged(purged) => Ok(purged),
            _ => Err(unexpected_answer()),
        }
    }

    async fn read_steps(&self, key: &StoreKey, token: &Token) -> Result<StepsRead, StoreError> {
        match self.run(Operation::ReadSteps(*key, *token)).await? {
            Answer::Steps(read) => Ok(read),
            _ => Err(unexpected_answer()),
        }
    }

    async fn append_step(
        &self,
        key: &StoreKey,
        token: &Token,
        at: usize,
        bytes: &[u8],
    ) -> Result<Write, StoreError> {
        let append = Operation::AppendStep(*key, *token, at, bytes.into());
        match self.run(append).await? {
            Answer::Write(write) => Ok(write),
            _ => Err(unexpected_answer()),
        }
    }

    async fn administer(&self, act: Act) -> Result<Told, StoreError> {
        match self.run(Operation::Administer(act)).await? {
            Answer::Told(told) => Ok(told),
            _ => Err(unexpected_answer()),
        }
    }

    async fn outbox(&self, act: OutboxAct) -> Result<OutboxAnswer, StoreError> {
        match self.run(Operation::Outbox(act)).await? {
            Answer::Outbox(answer) => Ok(answer),
            _ => Err(unexpected_answer()),
        }
    }

    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        match self.run(Operation::List(query.clone())).await? {
            Answer::Page(page) => Ok(page),
            _ => Err(unexpected_answer()),
        }
    }

    async fn stats(&self, cursor: Option<&Cursor>, max_scan: usize) -> Result<Stats, StoreError> {
        match self
            .run(Operation::Stats(cursor.cloned(), max_scan))
            .await?
        {
            Answer::Stats(stats) => Ok(stats),
            _ => Err(unexpected_answer()),
        }
    }

    /// There is no push: the engine wakes the waiters of its own process, and waiters in other processes poll.
    fn attach(&self, _: Wake) {}

    fn transactions(&self) -> &dyn Transactions {
        &self.transactions
    }
}

/// The writer answers each operation with its own kind of answer, so this error means a bug in this module.
fn unexpected_answer() -> StoreError {
    StoreError::new(Sqlite::STORE, StoreErrorKind::Unavailable)
        .with_source("the writer sent the answer of another operation: please report this bug")
}
