//! The outbox: messages in a table of their own, named as the records' with `_outbox` behind it.
//!
//! `migrate` makes the table beside that of the records, also for records that exist. A process of an earlier version does
//! not know of it.

use std::time::{Duration, SystemTime};

use super::{
    SqlStore, TableName,
    dialect::{Backend as _, Dialect},
    error::Verdict,
    operations::{Access, Records},
    row::micros,
    statement::{Parameter, Statement, Value, Values},
};
use crate::store::{
    erased::Operation,
    error::{StoreError, StoreErrorKind},
    outbox::{Mark, MessageClaim, MessageState, OutboxStore, StoredMessage},
};

/// The statements that databases do not share: the text of their files.
#[derive(Clone, Copy)]
pub(super) struct OutboxFiles {
    /// Creates the table.
    pub(super) table: &'static str,
    pub(super) claim: &'static str,
    /// Reads what was claimed, where the claim itself does not return it.
    pub(super) claimed: Option<&'static str>,
    pub(super) purge: &'static str,
}

/// The statements of the outbox of one table.
pub(super) struct OutboxStatements {
    pub(super) table: Statement,
    claim: Statement,
    claimed: Option<Statement>,
    mark: Statement,
    purge: Statement,
    dead: Statement,
    requeue: Statement,
    discard: Statement,
}

impl OutboxStatements {
    pub(super) fn new<D: Dialect>(table: &TableName) -> Self {
        let statement = |file: &str| D::SYNTAX.statement(file, table);
        let once = |file: &str| Statement {
            once: true,
            ..statement(file)
        };
        let files = D::FILES.outbox;
        Self {
            table: once(files.table),
            claim: statement(files.claim),
            claimed: files.claimed.map(statement),
            mark: statement(include_str!("shared/outbox/mark.sql")),
            purge: statement(files.purge),
            dead: once(include_str!("shared/outbox/dead.sql")),
            requeue: once(include_str!("shared/outbox/requeue.sql")),
            discard: once(include_str!("shared/outbox/discard.sql")),
        }
    }
}

/// The statement by which a handler's transaction puts a message into the outbox.
pub(super) fn enqueue<D: Dialect>(table: &TableName) -> Statement {
    D::SYNTAX.statement(include_str!("shared/outbox/enqueue.sql"), table)
}

/// A message that is put into the outbox.
#[derive(Debug)]
pub(crate) struct NewMessage {
    pub(crate) id: Box<str>,
    pub(crate) order_key: [u8; 32],
    pub(crate) topic: Box<str>,
    /// Sealed.
    pub(crate) payload: bytes::Bytes,
}

impl NewMessage {
    pub(super) fn values(&self, clock: i64) -> Values<'_> {
        Values::new()
            .int(Parameter::Clock, clock)
            .with(Parameter::MessageId, Value::Text(Some(&self.id)))
            .with(Parameter::OrderKey, Value::Bytes(Some(&self.order_key)))
            .with(Parameter::Topic, Value::Text(Some(&self.topic)))
            .with(Parameter::Payload, Value::Bytes(Some(&self.payload)))
    }
}

/// What a relay or an operator does.
#[derive(Clone, Debug)]
pub(super) enum OutboxAct {
    Claim(MessageClaim),
    Mark(Mark),
    Purge(usize),
    /// Reads dead messages behind this number.
    Dead(i64, usize),
    Requeue(i64),
    Discard(i64),
}

/// The answer to an [`OutboxAct`].
#[derive(Debug)]
pub(super) enum OutboxAnswer {
    Messages(Vec<StoredMessage>),
    /// So many rows were changed.
    Changed(u64),
}

#[expect(private_bounds, reason = "the databases are those of this crate")]
impl<D: Dialect> SqlStore<D> {
    async fn messages(&self, act: OutboxAct) -> Result<Vec<StoredMessage>, StoreError> {
        match self.0.outbox(act).await? {
            OutboxAnswer::Messages(messages) => Ok(messages),
            OutboxAnswer::Changed(_) => Err(unexpected::<D>()),
        }
    }

    async fn changed(&self, act: OutboxAct) -> Result<u64, StoreError> {
        match self.0.outbox(act).await? {
            OutboxAnswer::Changed(rows) => Ok(rows),
            OutboxAnswer::Messages(_) => Err(unexpected::<D>()),
        }
    }
}

impl<D: Dialect> OutboxStore for SqlStore<D> {
    fn claim<'a>(&'a self, claim: &'a MessageClaim) -> Operation<'a, Vec<StoredMessage>> {
        Box::pin(self.messages(OutboxAct::Claim(*claim)))
    }

    fn mark<'a>(&'a self, mark: &'a Mark) -> Operation<'a, bool> {
        Box::pin(async move { Ok(self.changed(OutboxAct::Mark(mark.clone())).await? > 0) })
    }

    fn purge_delivered(&self, limit: usize) -> Operation<'_, usize> {
        Box::pin(async move {
            let purged = self.changed(OutboxAct::Purge(limit)).await?;
            Ok(usize::try_from(purged).unwrap_or(usize::MAX))
        })
    }

    fn dead(&self, after: i64, limit: usize) -> Operation<'_, Vec<StoredMessage>> {
        Box::pin(self.messages(OutboxAct::Dead(after, limit)))
    }

    fn requeue(&self, number: i64) -> Operation<'_, bool> {
        Box::pin(async move { Ok(self.changed(OutboxAct::Requeue(number)).await? > 0) })
    }

    fn discard(&self, number: i64) -> Operation<'_, bool> {
        Box::pin(async move { Ok(self.changed(OutboxAct::Discard(number)).await? > 0) })
    }
}

/// Each act has its own kind of answer, so this error means a bug in this module.
fn unexpected<D: Dialect>() -> StoreError {
    let error = StoreError::new(D::STORE, StoreErrorKind::Unavailable);
    error.with_source("the answer belongs to another act: please report this bug")
}

impl<D: Dialect, A: Access<D>> Records<'_, D, A> {
    /// Never repeated by itself: the relay does that.
    pub(super) async fn outbox(&mut self, act: &OutboxAct) -> Result<OutboxAnswer, StoreError> {
        let done = match act {
            OutboxAct::Claim(claim) => self.claim_messages(claim).await.map(OutboxAnswer::Messages),
            OutboxAct::Dead(after, limit) => {
                let values = Values::new()
                    .int(Parameter::From, *after)
                    .int(Parameter::Limit, count(*limit));
                let rows = self.access.fetch(&self.statements.outbox.dead, &values);
                rows.await
                    .and_then(|rows| messages::<D>(&rows))
                    .map(OutboxAnswer::Messages)
            }
            change => self
                .change_messages(change)
                .await
                .map(OutboxAnswer::Changed),
        };
        done.map_err(|error| {
            let Verdict { kind, .. } = D::classify(&error);
            StoreError::new(D::STORE, kind).with_source(error)
        })
    }

    async fn claim_messages(
        &mut self,
        claim: &MessageClaim,
    ) -> Result<Vec<StoredMessage>, sqlx::Error> {
        let values = Values::new()
            .int(Parameter::Clock, self.clock)
            .token(Parameter::Token, Some(&claim.token))
            .int(Parameter::Lease, micros(claim.lease))
            .int(Parameter::Limit, count(claim.limit));
        let statements = &self.statements.outbox;
        let rows = match &statements.claimed {
            None => self.access.fetch(&statements.claim, &values).await?,
            Some(claimed) => {
                if self.access.execute(&statements.claim, &values).await? == 0 {
                    return Ok(Vec::new());
                }
                self.access.fetch(claimed, &values).await?
            }
        };
        let mut messages = messages::<D>(&rows)?;
        // A statement that changes rows returns them in any order.
        messages.sort_by_key(|message| message.number);
        Ok(messages)
    }

    async fn change_messages(&mut self, change: &OutboxAct) -> Result<u64, sqlx::Error> {
        let statements = &self.statements.outbox;
        let values = Values::new().int(Parameter::Clock, self.clock);
        let (statement, values) = match change {
            OutboxAct::Mark(mark) => {
                let (state, after, attempts) = match mark.state {
                    MessageState::Pending(after) => (0, after, -1),
                    MessageState::CutOff(attempts) => (0, Duration::ZERO, attempts.into()),
                    MessageState::Delivered(keep) => (1, keep, -1),
                    MessageState::Dead => (2, Duration::ZERO, -1),
                };
                let error = Value::Text(mark.error.as_deref());
                let values = values
                    .int(Parameter::Seq, mark.number)
                    .token(Parameter::Token, Some(&mark.token))
                    .int(Parameter::State, state)
                    .int(Parameter::Ttl, micros(after))
                    .int(Parameter::Attempt, attempts)
                    .with(Parameter::Error, error);
                (&statements.mark, values)
            }
            OutboxAct::Purge(limit) => (
                &statements.purge,
                values.int(Parameter::Limit, count(*limit)),
            ),
            OutboxAct::Requeue(number) => {
                (&statements.requeue, values.int(Parameter::Seq, *number))
            }
            OutboxAct::Discard(number) => {
                (&statements.discard, values.int(Parameter::Seq, *number))
            }
            // They return rows.
            OutboxAct::Claim(_) | OutboxAct::Dead(..) => return Ok(0),
        };
        self.access.execute(statement, &values).await
    }
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn messages<D: Dialect>(rows: &[D::Row]) -> Result<Vec<StoredMessage>, sqlx::Error> {
    rows.iter().map(message::<D>).collect()
}

fn message<D: Dialect>(row: &D::Row) -> Result<StoredMessage, sqlx::Error> {
    let text = |column| Ok::<_, sqlx::Error>(D::text(row, column)?.unwrap_or_default().into());
    let time = |column| {
        let since_1970 = u64::try_from(D::int(row, column)?).unwrap_or_default();
        Ok::<_, sqlx::Error>(SystemTime::UNIX_EPOCH + Duration::from_micros(since_1970))
    };
    Ok(StoredMessage {
        number: D::int(row, 0)?,
        id: text(1)?,
        topic: text(2)?,
        payload: D::bytes(row, 3)?.unwrap_or_default().into(),
        attempt: u32::try_from(D::int(row, 4)?).unwrap_or(u32::MAX),
        created_at: time(5)?,
        due_at: time(6)?,
        last_error: D::text(row, 7)?.map(Into::into),
    })
}
