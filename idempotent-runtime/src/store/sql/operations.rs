//! The operations of all SQL databases: what the result of a statement means, and when to repeat it.
//!
//! A database provides the [statements](Statements); each is one atomic step. How they are combined is decided here, once
//! for all databases:
//!
//! 1. `acquire` runs the claim. If it finds a free record, and the claim itself does not lease one, another statement
//!    leases it on the condition that it still has the token that was found. The second of two contenders meets another
//!    token and starts again from the claim.
//! 2. When a fenced write changes nothing, the record is read to find out why.
//! 3. A step that loses a race changes nothing. It is repeated a few times with the same token.
//! 4. A statement whose connection broke without an answer may still arrive (a proxy in between has it, or the server's
//!    machine). It is repeated on another connection if a second copy changes nothing and answers the same. An acquire
//!    would claim the key again after it was released, and a release would answer that there is no record, or that it is
//!    another's: their callers get the error, repeat them, and remember that one got no answer (contract, rule 3).

use std::marker::PhantomData;

use super::{
    dialect::Dialect,
    purge::{self, Batch, purge},
    retry::RetryBudget,
    row::{Assessment, Row, Unrecognised, WON, micros},
    statement::{Parameter, Statement, Value, Values},
    statements::Statements,
};
use crate::{
    scope::StoreKey,
    store::{
        error::{StoreError, StoreErrorKind},
        inspect::{Cursor, Page, Query, StateKind, Stats, share_of_keys},
        record::{Acquisition, Claim, Held, Outcome, Record, Write},
        token::Token,
    },
};

/// The records of one table, and the connection or connections to reach them.
pub(super) struct Records<'a, D: Dialect, A> {
    pub(super) access: A,
    pub(super) statements: &'a Statements,
    /// The time by this machine's clock, for the database that has none of its own.
    pub(super) clock: i64,
    dialect: PhantomData<D>,
}

/// How statements are sent.
pub(super) trait Access<D: Dialect>: Send {
    fn fetch(
        &mut self,
        statement: &Statement,
        values: &Values<'_>,
    ) -> impl Future<Output = Result<Vec<D::Row>, sqlx::Error>> + Send;

    fn execute(
        &mut self,
        statement: &Statement,
        values: &Values<'_>,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// How many connections there may be, all of which may have broken.
    fn connections(&self) -> usize;
}

const LOWEST: StoreKey = StoreKey::from_bytes([0; 32]);
const HIGHEST: StoreKey = StoreKey::from_bytes([0xff; 32]);

/// The state as the list and the counts see it.
fn kind_column(kind: StateKind) -> i64 {
    match kind {
        StateKind::InFlight => 0,
        StateKind::Completed => 1,
        StateKind::Tombstone => 2,
        StateKind::Unknown => 3,
    }
}

/// The result of a claim.
enum ClaimResult {
    /// The key is leased to the claim, as this attempt.
    Acquired(u32),
    /// The key has a record.
    Found(Row),
    /// The record appeared and disappeared during the statement.
    Raced,
}

/// A write that only the owner of the token may make.
pub(super) enum Change<'a> {
    Renew(&'a Held),
    Complete(&'a Held, &'a Outcome),
    Release(&'a StoreKey, &'a Token),
    Abandon(&'a StoreKey, &'a Token),
}

impl<'a, D: Dialect, A: Access<D>> Records<'a, D, A> {
    pub(super) fn new(access: A, statements: &'a Statements, clock: i64) -> Self {
        Self {
            access,
            statements,
            clock,
            dialect: PhantomData,
        }
    }

    pub(super) async fn acquire(&mut self, claim: &Claim) -> Result<Acquisition, StoreError> {
        if let Some(acquisition) = self.look_first(claim).await {
            return Ok(acquisition);
        }
        let mut budget = RetryBudget::sent_once();
        loop {
            match self.step(claim, &mut budget).await? {
                Some(acquisition) => return Ok(acquisition),
                None => budget.spend_round::<D>()?,
            }
        }
    }

    /// One step of an acquire; `None` if it lost a race or failed and may be repeated.
    async fn step(
        &mut self,
        claim: &Claim,
        budget: &mut RetryBudget,
    ) -> Result<Option<Acquisition>, StoreError> {
        let found = match self.claim(claim).await {
            Ok(ClaimResult::Acquired(attempt)) => {
                return Ok(Some(Acquisition::Acquired { attempt }));
            }
            Ok(ClaimResult::Found(row)) => row,
            Ok(ClaimResult::Raced) => return Ok(None),
            Err(error) => return self.failed(claim, budget, error).await,
        };
        let assessment = found.assess(claim).map_err(corrupt::<D>)?;
        let (changed, attempt) = match assessment {
            Assessment::Decided(acquisition) => return Ok(Some(acquisition)),
            Assessment::Own => (
                self.change(&Change::Renew(&claim.held())).await,
                found.attempt,
            ),
            Assessment::Free => (
                self.lease(claim, &found).await,
                found.attempt.saturating_add(1),
            ),
        };
        match changed {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(Acquisition::Acquired { attempt })),
            Err(error) => self.failed(claim, budget, error).await,
        }
    }

    /// A claim failed. Behind a lock it is answered; else the error may be absorbed.
    async fn failed(
        &mut self,
        claim: &Claim,
        budget: &mut RetryBudget,
        error: sqlx::Error,
    ) -> Result<Option<Acquisition>, StoreError> {
        if D::is_locked(&error)
            && let Some(acquisition) = self.look_behind_the_lock(claim).await
        {
            return Ok(Some(acquisition));
        }
        self.absorb(budget, error).map(|()| None)
    }

    pub(super) async fn write(&mut self, change: &Change<'_>) -> Result<Write, StoreError> {
        let mut budget = match change {
            Change::Release(..) => RetryBudget::sent_once(),
            _ => RetryBudget::new(),
        };
        loop {
            let answer = match self.change(change).await {
                Ok(0) => match self.find(change.key()).await {
                    Ok(None) => Ok(Some(Write::Missing)),
                    Ok(Some(row)) => Ok(row.why_unchanged(change.token(), change.outcome())),
                    Err(error) => Err(error),
                },
                Ok(_) => Ok(Some(Write::Applied)),
                Err(error) => Err(error),
            };
            match answer {
                // The server may have released it and then ended the session.
                Ok(Some(Write::Missing | Write::Fenced))
                    if matches!(change, Change::Release(..)) && budget.met_a_dead_connection() =>
                {
                    return Err(budget.unanswered::<D>());
                }
                Ok(Some(write)) => return Ok(write),
                Ok(None) => {}
                Err(error) => self.absorb(&mut budget, error)?,
            }
            budget.spend_round::<D>()?;
        }
    }

    pub(super) async fn get(&mut self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let mut budget = RetryBudget::new();
        loop {
            match self.record(key).await {
                Ok(record) => return record.map_err(corrupt::<D>),
                Err(error) => self.absorb(&mut budget, error)?,
            }
            budget.spend_round::<D>()?;
        }
    }

    /// Deletes at most this many expired records. Returns how many it deleted.
    pub(super) async fn purge(
        &mut self,
        cursor: &purge::Cursor,
        limit: usize,
    ) -> Result<usize, StoreError> {
        if limit == 0 {
            return Ok(0);
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut budget = RetryBudget::new();
        loop {
            match purge(self, cursor, limit).await {
                Ok(purged) => return Ok(usize::try_from(purged).unwrap_or(usize::MAX)),
                Err(error) => self.absorb(&mut budget, error)?,
            }
            budget.spend_round::<D>()?;
        }
    }

    /// Leases the key to the claim if it has no record, or returns the record.
    async fn claim(&mut self, claim: &Claim) -> Result<ClaimResult, sqlx::Error> {
        let values = Values::claim(claim).int(Parameter::Clock, self.clock);
        let rows = self.access.fetch(&self.statements.claim, &values).await?;
        let Some(row) = rows.first() else {
            // The claim does not see a record that was inserted since it began. In SQLite, it returns none.
            let found = self.read(&values).await?;
            return Ok(found.map_or(ClaimResult::Raced, ClaimResult::Found));
        };
        let found = Row::read::<D>(row)?;
        // The token decides, not the number of rows that the server reports to have inserted.
        let won = D::int(row, WON)? == 1 && *found.token() == claim.token;
        Ok(if won {
            ClaimResult::Acquired(found.attempt)
        } else {
            ClaimResult::Found(found)
        })
    }

    /// Leases the record to the claim if it has not changed since it was found. Returns the number of changed rows: zero
    /// where the claim itself does so, since then the record has changed meanwhile.
    async fn lease(&mut self, claim: &Claim, found: &Row) -> Result<u64, sqlx::Error> {
        let Some(lease) = &self.statements.lease else {
            return Ok(0);
        };
        let values = Values::claim(claim).token(Parameter::Found, Some(found.token()));
        self.access.execute(lease, &values).await
    }

    /// Reads the record, also if it has expired.
    pub(super) async fn read(&mut self, values: &Values<'_>) -> Result<Option<Row>, sqlx::Error> {
        let rows = self.access.fetch(&self.statements.read, values).await?;
        rows.first().map(Row::read::<D>).transpose()
    }

    async fn find(&mut self, key: &StoreKey) -> Result<Option<Row>, sqlx::Error> {
        let values = Values::new().key(key).int(Parameter::Clock, self.clock);
        self.read(&values).await
    }

    async fn record(
        &mut self,
        key: &StoreKey,
    ) -> Result<Result<Option<Record>, Unrecognised>, sqlx::Error> {
        let values = Values::new().key(key).int(Parameter::Clock, self.clock);
        let rows = self.access.fetch(&self.statements.read, &values).await?;
        rows.first().map_or(Ok(Ok(None)), Row::read_record::<D>)
    }

    pub(super) async fn list(&mut self, query: &Query) -> Result<Page, StoreError> {
        let cursor = query.cursor.as_ref();
        let after = cursor.map(|cursor| cursor.key(D::STORE)).transpose()?;
        let mut budget = RetryBudget::new();
        loop {
            match self.page(query, after.as_ref()).await {
                Ok(page) => return Ok(page),
                Err(error) => self.absorb(&mut budget, error)?,
            }
            budget.spend_round::<D>()?;
        }
    }

    /// One page. First it is decided up to which record it looks, so that the cursor passes over none that is inserted
    /// meanwhile.
    async fn page(&mut self, query: &Query, after: Option<&StoreKey>) -> Result<Page, sqlx::Error> {
        let (lowest, highest) = match &query.prefix {
            Some(prefix) => (prefix.lowest(), prefix.highest()),
            None => (LOWEST, HIGHEST),
        };
        let values = self.range(after, &lowest, &highest);
        let edge = self.edge(&values, query.max_scan()).await?;
        let limit = query.limit();
        // Records that were created later have more time left than none.
        let age = query.older_than.map_or(i64::MAX, |age| -micros(age));
        let values = values
            .with(
                Parameter::Highest,
                Value::Bytes(Some(edge.as_ref().unwrap_or(&highest).as_bytes())),
            )
            .int(Parameter::Kind, query.state.map_or(-1, kind_column))
            .with(Parameter::Endpoint, Value::Text(query.endpoint.as_deref()))
            .int(Parameter::Age, age)
            .int(Parameter::Limit, i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = self.access.fetch(&self.statements.list, &values).await?;
        let entries: Result<Vec<_>, _> = rows.iter().map(Row::read_entry::<D>).collect();
        let entries = entries?;
        let last = entries.last().filter(|_| entries.len() >= limit);
        let next = last.map(|entry| entry.key).or(edge);
        let next = next.as_ref().map(Cursor::after);
        Ok(Page::new(entries, next))
    }

    pub(super) async fn stats(
        &mut self,
        cursor: Option<&Cursor>,
        max_scan: usize,
    ) -> Result<Stats, StoreError> {
        let after = cursor.map(|cursor| cursor.key(D::STORE)).transpose()?;
        let mut budget = RetryBudget::new();
        loop {
            match self.count(after.as_ref(), max_scan).await {
                Ok(stats) => return Ok(stats),
                Err(error) => self.absorb(&mut budget, error)?,
            }
            budget.spend_round::<D>()?;
        }
    }

    async fn count(
        &mut self,
        after: Option<&StoreKey>,
        max_scan: usize,
    ) -> Result<Stats, sqlx::Error> {
        let values = self.range(after, &LOWEST, &HIGHEST);
        let edge = self.edge(&values, max_scan).await?;
        let highest = edge.as_ref().unwrap_or(&HIGHEST);
        let values = values.with(Parameter::Highest, Value::Bytes(Some(highest.as_bytes())));
        let mut stats = Stats::default();
        for row in &self.access.fetch(&self.statements.stats, &values).await? {
            let count = |column| Ok::<_, sqlx::Error>(D::int(row, column)?.unsigned_abs());
            match D::int(row, 0)? {
                0 => stats.in_flight += count(1)?,
                1 => {
                    stats.completed += count(1)?;
                    stats.stored_bytes += count(2)?;
                }
                2 => stats.tombstones += count(1)?,
                3 => stats.unknown += count(1)?,
                // A row that this crate did not write is no record of its.
                _ => {}
            }
        }
        stats.share = share_of_keys(after, edge.as_ref());
        stats.next = edge.as_ref().map(Cursor::after);
        Ok(stats)
    }

    fn range<'k>(
        &self,
        after: Option<&'k StoreKey>,
        lowest: &'k StoreKey,
        highest: &'k StoreKey,
    ) -> Values<'k> {
        // Before every key.
        let after = after.map_or(&[][..], |key| key.as_bytes());
        Values::new()
            .with(Parameter::After, Value::Bytes(Some(after)))
            .with(Parameter::Lowest, Value::Bytes(Some(lowest.as_bytes())))
            .with(Parameter::Highest, Value::Bytes(Some(highest.as_bytes())))
            .int(Parameter::Clock, self.clock)
    }

    /// The last of as many records as may be looked at; `None` if there are fewer.
    async fn edge(
        &mut self,
        values: &Values<'_>,
        max_scan: usize,
    ) -> Result<Option<StoreKey>, sqlx::Error> {
        let offset = i64::try_from(max_scan.max(1) - 1).unwrap_or(i64::MAX);
        let values = values.int(Parameter::Offset, offset);
        let rows = self.access.fetch(&self.statements.edge, &values).await?;
        rows.first().map(Row::read_key::<D>).transpose()
    }

    /// Changes the record if it is in flight under the token. Returns the number of changed rows.
    async fn change(&mut self, change: &Change<'_>) -> Result<u64, sqlx::Error> {
        let values = Values::new()
            .key(change.key())
            .token(Parameter::Token, Some(change.token()))
            .int(Parameter::Clock, self.clock);
        let (statement, values) = match change {
            Change::Renew(held) => (&self.statements.renew, values.held(held)),
            Change::Complete(held, outcome) => {
                (&self.statements.complete, values.completed(held, outcome))
            }
            Change::Release(..) => (&self.statements.release, values),
            Change::Abandon(..) => (&self.statements.abandon, values),
        };
        self.access.execute(statement, &values).await
    }

    /// One batch of a purge, which starts at this time.
    pub(super) async fn batch(&mut self, from: i64, limit: i64) -> Result<Batch, sqlx::Error> {
        let values = Values::new()
            .int(Parameter::From, from)
            .int(Parameter::Limit, limit)
            .int(Parameter::Clock, self.clock);
        D::purge(&mut self.access, self.statements, &values, limit).await
    }

    /// Accepts an error after which the step may be repeated, and returns any other.
    pub(super) fn absorb(
        &self,
        budget: &mut RetryBudget,
        error: sqlx::Error,
    ) -> Result<(), StoreError> {
        budget.absorb::<D>(self.access.connections(), error)
    }
}

impl Change<'_> {
    pub(super) fn key(&self) -> &StoreKey {
        match self {
            Self::Renew(held) | Self::Complete(held, _) => &held.key,
            Self::Release(key, _) | Self::Abandon(key, _) => key,
        }
    }

    pub(super) fn token(&self) -> &Token {
        match self {
            Self::Renew(held) | Self::Complete(held, _) => &held.token,
            Self::Release(_, token) | Self::Abandon(_, token) => token,
        }
    }

    fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Complete(_, outcome) => Some(outcome),
            _ => None,
        }
    }
}

fn corrupt<D: Dialect>(error: Unrecognised) -> StoreError {
    StoreError::new(D::STORE, StoreErrorKind::Corrupt).with_source(error)
}
