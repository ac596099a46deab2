//! The one writer: a thread that owns the connection, and puts what has gathered into one transaction.
//!
//! SQLite lets one connection write at a time and makes each commit durable by a flush to the disk. So the
//! operations of all tasks queue up for one writer, and those that arrive while it flushes share the next flush
//! ("group commit"). Each is still a step of its own, and is answered only after the commit:
//!
//! 1. A transaction begins immediately: it gets the write lock before it reads, so that it can neither
//!    deadlock with another process nor have to be begun anew.
//! 2. If a step fails, the transaction is undone, and its steps run again, each in one of its own. A step
//!    fails by itself.
//! 3. An operation whose caller went away before its turn is not carried out.
//! 4. Should the thread panic, everybody who waits, and whoever comes, is told that it has ended.
//! 5. Nothing is answered if the file turns out not to be the one that was opened.
//! 6. A flush that fails undoes the steps it was for, and each caller is told that it failed. After a crash of the
//!    machine they may have happened nevertheless.

use std::{slice, sync::Arc, thread};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{
    NAME,
    identity::Identity,
    records::{self, Locked, judge},
    statements::Statements,
};
use crate::{
    scope::StoreKey,
    store::{
        error::{StoreError, StoreErrorKind},
        record::{Acquisition, Claim, Held, Outcome, Record, Write},
        sql::operations::{self, Change},
        token::Token,
    },
};

/// Operations that may wait for their turn; further ones wait for a place, without having asked for anything.
const QUEUE: usize = 1024;
/// Steps of one transaction. Enough that the flush is a small part of it, few enough that nobody waits long.
const BATCH: usize = 128;

/// The way to the writer. The thread ends when the last one is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
}

/// An operation with everything it needs.
#[derive(Clone)]
pub(super) enum Operation {
    Acquire(Claim),
    Renew(Held),
    Complete(Held, Outcome),
    Release(StoreKey, Token),
    Abandon(StoreKey, Token),
    Get(StoreKey),
    Purge(usize),
    #[cfg(test)]
    Panic,
}

/// What an operation answers.
pub(super) enum Answer {
    Acquisition(Acquisition),
    Write(Write),
    Record(Option<Record>),
    Purged(usize),
}

struct Job {
    operation: Operation,
    reply: oneshot::Sender<Result<Answer, StoreError>>,
}

/// Why a transaction was undone.
enum Failed {
    /// It could not begin or end: for all its steps alike.
    Whole(Arc<sqlx::Error>),
    /// One of its steps failed.
    Step(StoreError),
}

impl Operation {
    /// Reads need no write lock.
    fn only_reads(&self) -> bool {
        matches!(self, Self::Get(_))
    }
}

impl Writer {
    /// Starts the thread. It needs no runtime of the caller's, so the store may be used from several.
    pub(super) fn start(
        connection: SqliteConnection,
        identity: Identity,
        statements: Arc<Statements>,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let desk = Desk {
            connection,
            identity,
            statements,
        };
        thread::Builder::new()
            .name("idempotent-sqlite".into())
            .spawn(move || runtime.block_on(desk.serve(jobs)))?;
        Ok(Self { queue })
    }

    /// Has an operation carried out. Dropped before its turn, it never is.
    pub(super) async fn ask(&self, operation: Operation) -> Result<Answer, StoreError> {
        let gone = || {
            StoreError::new(NAME, StoreErrorKind::Unavailable).with_source("the writer has ended")
        };
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Job { operation, reply })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The same failure, for each that it happened to.
fn whole(error: &Arc<sqlx::Error>) -> StoreError {
    StoreError::new(NAME, judge(error).kind).with_source(Arc::clone(error))
}

fn unanswered() -> StoreError {
    StoreError::new(NAME, StoreErrorKind::Unavailable)
}

/// Where the writer sits.
struct Desk {
    connection: SqliteConnection,
    identity: Identity,
    statements: Arc<Statements>,
}

impl Desk {
    async fn serve(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.recv_many(&mut batch, BATCH).await > 0 {
            batch.retain(|job| !job.reply.is_closed());
            let (reads, writes) = batch
                .drain(..)
                .partition::<Vec<_>, _>(|job| job.operation.only_reads());
            self.commit(writes).await;
            for Job { operation, reply } in reads {
                let answer = self.look(&operation).await;
                // Who does not listen any more needs no answer, here and below.
                let _ = reply.send(answer);
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "closing the SQLite file"
            );
        }
    }

    async fn look(&mut self, operation: &Operation) -> Result<Answer, StoreError> {
        let answer = self.step(operation).await?;
        self.still_the_file().map_err(|error| whole(&error))?;
        Ok(answer)
    }

    /// All steps in one transaction, or each in its own if one of them fails.
    async fn commit(&mut self, mut jobs: Vec<Job>) {
        match self.transact(&jobs).await {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    let _ = job.reply.send(Ok(answer));
                }
            }
            Err(Failed::Whole(error)) => {
                for job in jobs {
                    let _ = job.reply.send(Err(whole(&error)));
                }
            }
            Err(Failed::Step(error)) => {
                if jobs.len() == 1 {
                    let _ = jobs.remove(0).reply.send(Err(error));
                }
                for job in jobs {
                    let answer = self.transact(slice::from_ref(&job)).await;
                    let _ = job.reply.send(match answer {
                        Ok(mut answers) => answers.pop().ok_or_else(unanswered),
                        Err(Failed::Whole(error)) => Err(whole(&error)),
                        Err(Failed::Step(error)) => Err(error),
                    });
                }
            }
        }
    }

    async fn transact(&mut self, jobs: &[Job]) -> Result<Vec<Answer>, Failed> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        self.run("begin immediate").await?;
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            match self.step(&job.operation).await {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    self.undo().await;
                    return Err(Failed::Step(error));
                }
            }
        }
        if let Err(failed) = self.run("commit").await {
            self.undo().await;
            return Err(failed);
        }
        self.still_the_file().map_err(Failed::Whole)?;
        Ok(answers)
    }

    fn still_the_file(&self) -> Result<(), Arc<sqlx::Error>> {
        let checked = self.identity.check();
        checked.map_err(|error| Arc::new(sqlx::Error::Io(error)))
    }

    async fn step(&mut self, operation: &Operation) -> Result<Answer, StoreError> {
        let now = records::now();
        let records = &mut Locked {
            connection: &mut self.connection,
            statements: &self.statements,
            now,
        };
        let write = match operation {
            #[cfg(test)]
            Operation::Panic => panic!("as the test demands"),
            Operation::Acquire(claim) => {
                return operations::acquire(records, claim)
                    .await
                    .map(Answer::Acquisition);
            }
            Operation::Get(key) => return operations::get(records, key).await.map(Answer::Record),
            Operation::Purge(limit) => {
                return operations::purge(records, *limit).await.map(Answer::Purged);
            }
            Operation::Renew(held) => Change::Renew(held),
            Operation::Complete(held, outcome) => Change::Complete(held, outcome),
            Operation::Release(key, token) => Change::Release(key, token),
            Operation::Abandon(key, token) => Change::Abandon(key, token),
        };
        operations::write(records, write).await.map(Answer::Write)
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), Failed> {
        match sqlx::query(statement).execute(&mut self.connection).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failed::Whole(Arc::new(error))),
        }
    }

    /// Some failures undo the transaction by themselves, so that there is nothing left to undo.
    async fn undo(&mut self) {
        if let Err(Failed::Whole(error)) = self.run("rollback").await {
            tracing::debug!(%error, "nothing to roll back");
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    #[tokio::test]
    async fn a_writer_that_panicked_is_told_and_hangs_nobody() {
        let connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let table = crate::store::sql::TableName::default();
        let file = std::env::current_exe().expect("this test");
        let identity = Identity::of(&file).expect("it is there");
        let statements = Arc::new(Statements::new(&table));
        let writer = Writer::start(connection, identity, statements).unwrap();
        let key = StoreKey::from_bytes([1; 32]);
        let (panicked, beside, after) = tokio::join!(
            writer.ask(Operation::Panic),
            writer.ask(Operation::Purge(1)),
            async {
                tokio::task::yield_now().await;
                writer.ask(Operation::Get(key)).await
            }
        );
        for answer in [
            panicked,
            beside,
            after,
            writer.ask(Operation::Get(key)).await,
        ] {
            let error = answer.err().expect("no answer");
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        }
    }
}
