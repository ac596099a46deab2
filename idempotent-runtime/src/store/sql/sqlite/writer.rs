//! The writer: a thread that owns the connection and executes the queued operations in shared transactions.
//!
//! SQLite lets one connection write at a time and makes each commit durable by a flush to the disk. So the operations
//! of all tasks queue up for one writer, and those that arrive during a flush share the next one ("group commit"). Each
//! is still a step of its own, and is answered only after the commit:
//!
//! 1. A transaction begins immediately: it takes the write lock before it reads, so that it can neither deadlock with
//!    another process nor have to start again.
//! 2. If a step fails, the transaction is rolled back and its steps run again, each in its own transaction, so that a
//!    step fails alone.
//! 3. An operation whose caller went away before its turn is not executed. The turn comes when the write lock is there: a
//!    caller may have gone while another process held it.
//! 4. If the thread panics, all waiting and later calls return the error that the writer has ended.
//! 5. No operation is answered if the file is not the one that was opened.
//! 6. If a flush fails, its steps are rolled back and all their callers get the error. After a crash of the machine the
//!    steps may be in the file nevertheless.

use std::{fmt, path::PathBuf, slice, sync::Arc, thread};

use sqlx::{Connection, Sqlite, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{
    classify,
    identity::Identity,
    now, primary_code,
    reader::{Reader, Turn},
    transaction::{Gate, SqliteTransactions},
};
use crate::{
    scope::StoreKey,
    store::{
        error::{StoreError, StoreErrorKind},
        inspect::{Cursor, Page, Query, Stats},
        record::{Acquisition, Claim, Held, Outcome, Record, Write},
        sql::{
            admin::{Act, Told},
            dialect::Dialect as _,
            operations::{Change, Records},
            outbox::{OutboxAct, OutboxAnswer},
            purge,
            statements::Statements,
        },
        steps::StepsRead,
        token::Token,
    },
};

/// The length of the queue. When it is full, further operations wait until they are queued.
const QUEUE: usize = 1024;
/// The largest number of steps in one transaction: enough to make the flush a small part of it, and few enough to keep
/// it short.
const BATCH: usize = 128;

/// A handle on the writer. The thread ends when the last handle is dropped.
pub(in crate::store::sql) struct Writer {
    file: PathBuf,
    queue: mpsc::Sender<Job>,
    pub(super) transactions: SqliteTransactions,
    /// Reads while the writer waits.
    pub(super) reader: Reader,
}

/// An operation with its arguments.
#[derive(Clone)]
pub(super) enum Operation {
    Acquire(Claim),
    Renew(Held),
    Complete(Held, Outcome),
    Release(StoreKey, Token),
    Abandon(StoreKey, Token),
    Get(StoreKey),
    Purge(usize),
    ReadSteps(StoreKey, Token),
    AppendStep(StoreKey, Token, usize, Box<[u8]>),
    Administer(Act),
    Outbox(OutboxAct),
    List(Query),
    Stats(Option<Cursor>, usize),
    #[cfg(test)]
    Panic,
}

/// The answer to an operation.
pub(super) enum Answer {
    Acquisition(Acquisition),
    Write(Write),
    Record(Option<Record>),
    Purged(usize),
    Steps(StepsRead),
    Told(Told),
    Outbox(OutboxAnswer),
    Page(Page),
    Stats(Stats),
}

struct Job {
    operation: Operation,
    turn: Arc<Turn>,
    reply: oneshot::Sender<Result<Answer, StoreError>>,
}

/// Why a transaction was rolled back.
enum TransactionError {
    /// It could not begin or commit: the error of all its steps.
    Shared(Arc<sqlx::Error>),
    /// One of its steps failed.
    Step(StoreError),
}

impl Operation {
    /// Reads need no write lock.
    fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Get(_)
                | Self::ReadSteps(..)
                | Self::List(_)
                | Self::Stats(..)
                | Self::Administer(Act::Events(_))
                | Self::Outbox(OutboxAct::Dead(..))
        )
    }
}

impl Writer {
    /// Starts the thread, which has its own runtime: the store may be used from several others.
    pub(super) fn start(
        connection: SqliteConnection,
        identity: Identity,
        statements: Statements,
        transactions: SqliteTransactions,
    ) -> std::io::Result<Self> {
        let file = identity.file().to_owned();
        let statements = Arc::new(statements);
        let reader = Reader::new(
            transactions.options(),
            identity.clone(),
            Arc::clone(&statements),
        );
        let (queue, jobs) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let task = WriterTask {
            connection,
            identity,
            statements,
            cursor: purge::Cursor::default(),
            open: false,
            gate: transactions.gate(),
        };
        thread::Builder::new()
            .name("idempotent-sqlite".into())
            .spawn(move || runtime.block_on(task.run(jobs)))?;
        Ok(Self {
            file,
            queue,
            transactions,
            reader,
        })
    }

    /// Runs an operation. If this future is dropped before the operation's turn, the operation is not executed.
    pub(super) async fn run(&self, operation: Operation) -> Result<Answer, StoreError> {
        self.run_in_turn(operation, Arc::default()).await
    }

    pub(super) async fn run_in_turn(
        &self,
        operation: Operation,
        turn: Arc<Turn>,
    ) -> Result<Answer, StoreError> {
        let ended = || {
            StoreError::new(Sqlite::STORE, StoreErrorKind::Unavailable)
                .with_source("the writer thread has ended by a panic: open the store again")
        };
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Job {
                operation,
                turn,
                reply,
            })
            .await
            .map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// An error that several operations share, for one of them.
fn shared(error: &Arc<sqlx::Error>) -> StoreError {
    StoreError::new(Sqlite::STORE, classify(error).kind).with_source(Arc::clone(error))
}

/// Whether a row was read whose values this crate does not store. SQLite itself had no error.
fn is_unreadable(error: &StoreError) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<sqlx::Error>());
    error.kind() == StoreErrorKind::Corrupt && !matches!(source, Some(sqlx::Error::Database(_)))
}

fn unanswered() -> StoreError {
    StoreError::new(Sqlite::STORE, StoreErrorKind::Unavailable)
}

/// The state of the writer's thread.
struct WriterTask {
    connection: SqliteConnection,
    identity: Identity,
    statements: Arc<Statements>,
    cursor: purge::Cursor,
    /// Whether a transaction could not be rolled back.
    open: bool,
    /// The turns in which the write lock is used in this process.
    gate: Gate,
}

impl WriterTask {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.recv_many(&mut batch, BATCH).await > 0 {
            batch.retain(|job| !job.reply.is_closed());
            let (reads, writes) = batch
                .drain(..)
                .partition::<Vec<_>, _>(|job| job.operation.only_reads());
            self.commit(writes).await;
            for Job {
                operation, reply, ..
            } in reads
            {
                let answer = self.read(&operation).await;
                // A send fails if the caller has gone, here and below; then no answer is needed.
                let _ = reply.send(answer);
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the SQLite file was not closed cleanly"
            );
        }
    }

    async fn read(&mut self, operation: &Operation) -> Result<Answer, StoreError> {
        let answer = self.step(operation).await?;
        self.check_file().map_err(|error| shared(&error))?;
        Ok(answer)
    }

    /// Runs all jobs in one transaction, or each in its own if one of them fails.
    async fn commit(&mut self, mut jobs: Vec<Job>) {
        match self.transact(&jobs).await {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    if let Some(answer) = answer {
                        let _ = job.reply.send(answer);
                    }
                }
            }
            Err(TransactionError::Shared(error)) => {
                for job in jobs {
                    let _ = job.reply.send(Err(shared(&error)));
                }
            }
            Err(TransactionError::Step(error)) => {
                if jobs.len() == 1 {
                    let _ = jobs.remove(0).reply.send(Err(error));
                }
                for job in jobs {
                    let answer = self.transact(slice::from_ref(&job)).await;
                    let _ = job.reply.send(match answer {
                        Ok(mut answers) => answers.pop().flatten().unwrap_or(Err(unanswered())),
                        Err(TransactionError::Shared(error)) => Err(shared(&error)),
                        Err(TransactionError::Step(error)) => Err(error),
                    });
                }
            }
        }
    }

    /// Runs jobs in one transaction. Those whose callers have gone have no answer, and were not executed.
    async fn transact(
        &mut self,
        jobs: &[Job],
    ) -> Result<Vec<Option<Result<Answer, StoreError>>>, TransactionError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let gate = Arc::clone(&self.gate);
        // In turn with the transactions of handlers.
        let _turn = gate.acquire().await;
        self.begin().await?;
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            if job.reply.is_closed() || !job.turn.comes() {
                answers.push(None);
                continue;
            }
            match self.step(&job.operation).await {
                Ok(answer) => answers.push(Some(Ok(answer))),
                // It changed nothing: a damaged row fails alone, and the others need not start again.
                Err(error) if is_unreadable(&error) => answers.push(Some(Err(error))),
                Err(error) => {
                    self.roll_back().await;
                    return Err(TransactionError::Step(error));
                }
            }
        }
        if let Err(error) = self.execute("commit").await {
            self.roll_back().await;
            return Err(error);
        }
        self.check_file().map_err(TransactionError::Shared)?;
        Ok(answers)
    }

    fn check_file(&self) -> Result<(), Arc<sqlx::Error>> {
        let checked = self.identity.check();
        checked.map_err(|error| Arc::new(sqlx::Error::Io(error)))
    }

    async fn step(&mut self, operation: &Operation) -> Result<Answer, StoreError> {
        let mut records = Records::<Sqlite, _>::new(&mut self.connection, &self.statements, now());
        let write = match operation {
            #[cfg(test)]
            Operation::Panic => panic!("requested by the test"),
            Operation::Acquire(claim) => {
                return records.acquire(claim).await.map(Answer::Acquisition);
            }
            Operation::Get(key) => return records.get(key).await.map(Answer::Record),
            Operation::Administer(act) => return records.administer(act).await.map(Answer::Told),
            Operation::Outbox(act) => return records.outbox(act).await.map(Answer::Outbox),
            Operation::Purge(limit) => {
                return records
                    .purge(&self.cursor, *limit)
                    .await
                    .map(Answer::Purged);
            }
            Operation::ReadSteps(key, token) => {
                return records.read_steps(key, token).await.map(Answer::Steps);
            }
            Operation::AppendStep(key, token, at, bytes) => {
                let appended = records.append_step(key, token, *at, bytes).await;
                return appended.map(Answer::Write);
            }
            Operation::List(query) => return records.list(query).await.map(Answer::Page),
            Operation::Stats(cursor, max_scan) => {
                let stats = records.stats(cursor.as_ref(), *max_scan).await;
                return stats.map(Answer::Stats);
            }
            Operation::Renew(held) => Change::Renew(held),
            Operation::Complete(held, outcome) => Change::Complete(held, outcome),
            Operation::Release(key, token) => Change::Release(key, token),
            Operation::Abandon(key, token) => Change::Abandon(key, token),
        };
        records.write(&write).await.map(Answer::Write)
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), TransactionError> {
        match sqlx::query(statement).execute(&mut self.connection).await {
            Ok(_) => Ok(()),
            Err(error) => Err(TransactionError::Shared(Arc::new(error))),
        }
    }

    /// Begins a transaction. If one was left open, because rolling it back had failed, it is rolled back first.
    async fn begin(&mut self) -> Result<(), TransactionError> {
        if self.open {
            self.execute("rollback").await?;
            self.open = false;
        }
        self.execute("begin immediate").await
    }

    /// Rolls the transaction back. It fails if SQLite has rolled back by itself, as after some errors.
    async fn roll_back(&mut self) {
        if let Err(TransactionError::Shared(error)) = self.execute("rollback").await {
            // `SQLITE_ERROR`, as for every statement that makes no sense: SQLite has rolled back by itself.
            let ended = primary_code(&error) == Some(1);
            self.open = !ended;
            tracing::debug!(%error, ended, "the transaction could not be rolled back");
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::{super::transaction::gate, *};

    #[tokio::test]
    async fn a_transaction_that_was_left_open_is_rolled_back_before_the_next_one() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("begin").execute(&mut connection).await.unwrap();
        let file = std::env::current_exe().expect("this test");
        let mut task = WriterTask {
            connection,
            identity: Identity::of(&file).expect("the file exists"),
            statements: Arc::new(Statements::new::<Sqlite>(
                &crate::store::sql::TableName::default(),
            )),
            cursor: purge::Cursor::default(),
            gate: gate(),
            open: true,
        };
        assert!(task.begin().await.is_ok());
        task.roll_back().await;
        // This one has nothing to roll back.
        task.roll_back().await;
        assert!(!task.open);
        assert!(task.begin().await.is_ok());
    }

    #[tokio::test]
    async fn after_a_panic_of_the_writer_every_call_returns_an_error() {
        let connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let table = crate::store::sql::TableName::default();
        let file = std::env::current_exe().expect("this test");
        let identity = Identity::of(&file).expect("the file exists");
        let statements = Statements::new::<Sqlite>(&table);
        let transactions =
            SqliteTransactions::new(sqlx::sqlite::SqliteConnectOptions::new(), &table, gate());
        let writer = Writer::start(connection, identity, statements, transactions).unwrap();
        let key = StoreKey::from_bytes([1; 32]);
        let (panicked, beside, after) = tokio::join!(
            writer.run(Operation::Panic),
            writer.run(Operation::Purge(1)),
            async {
                tokio::task::yield_now().await;
                writer.run(Operation::Get(key)).await
            }
        );
        for answer in [
            panicked,
            beside,
            after,
            writer.run(Operation::Get(key)).await,
        ] {
            let error = answer.err().expect("no answer");
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        }
    }
}
