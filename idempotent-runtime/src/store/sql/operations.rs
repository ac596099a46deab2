//! The operations of all SQL databases: what the result of a statement means, and when to repeat it.
//!
//! A database provides the statements ([`Records`]); each is one atomic step. How they are combined is decided here,
//! once for all databases:
//!
//! 1. `acquire` runs [`Records::claim`]. If it finds a free record, [`Records::lease`] leases it on the condition that
//!    it still has the token that was found. The second of two contenders meets another token and starts again from
//!    the claim.
//! 2. When a fenced write changes nothing, the record is read to find out why.
//! 3. A step that loses a race changes nothing. It is repeated a few times with the same token.
//! 4. A statement whose connection broke without an answer may still arrive (a proxy in between has it, or the server's
//!    machine). It is repeated on another connection, because a second copy changes nothing; but not an acquire, which
//!    would claim the key again after it was released. Its caller gets the error, repeats it, and remembers that one got
//!    no answer (contract, rule 3).

use super::{
    error::{Repeat, Verdict},
    row::{Assessment, Row},
};
use crate::{
    scope::StoreKey,
    store::{
        error::{StoreError, StoreErrorKind},
        record::{Acquisition, Claim, Held, Outcome, Record, Write},
        token::Token,
    },
};

/// How often a step is started because it lost a race. A lost race means that another contender changed the record, so
/// that even 64 contenders need two or three rounds.
const ROUNDS: usize = 8;

/// The statements of one database. Each is one atomic step on one record.
pub(super) trait Records: Send {
    /// The store's name, for errors.
    const NAME: &'static str;

    /// Leases the key to the claim if it has no record; otherwise returns the record.
    fn claim(
        &mut self,
        claim: &Claim,
    ) -> impl Future<Output = Result<ClaimResult, sqlx::Error>> + Send;

    /// Leases the record to the claim if it has not changed since it was found. Returns the number of changed rows.
    fn lease(
        &mut self,
        claim: &Claim,
        found: &Row,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Reads the record, also if it has expired.
    fn read(
        &mut self,
        key: &StoreKey,
    ) -> impl Future<Output = Result<Option<Row>, sqlx::Error>> + Send;

    /// Changes the record if it is in flight under the token. Returns the number of changed rows.
    fn write(
        &mut self,
        change: &Change<'_>,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Deletes at most this many expired records. Returns how many it deleted.
    fn purge(&mut self, limit: i64) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// What an error means, and whether to repeat the statement at once.
    fn classify(&self, error: &sqlx::Error) -> Verdict;
}

/// The result of [`Records::claim`].
pub(super) enum ClaimResult {
    /// The key is leased to the claim, as this attempt.
    Acquired(u32),
    /// The key has a record.
    Found(Row),
    /// The record appeared or disappeared during the statement.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    Raced,
}

/// A write that only the owner of the token may make.
pub(super) enum Change<'a> {
    Renew(&'a Held),
    Complete(&'a Held, &'a Outcome),
    Release(&'a StoreKey, &'a Token),
    Abandon(&'a StoreKey, &'a Token),
}

pub(super) async fn acquire<R: Records>(
    records: &mut R,
    claim: &Claim,
) -> Result<Acquisition, StoreError> {
    let mut budget = RetryBudget::for_acquire();
    loop {
        match step(records, claim, &mut budget).await? {
            Some(acquisition) => return Ok(acquisition),
            None => budget.spend_round::<R>()?,
        }
    }
}

/// One step of an acquire; `None` if it lost a race or failed and may be repeated.
async fn step<R: Records>(
    records: &mut R,
    claim: &Claim,
    budget: &mut RetryBudget,
) -> Result<Option<Acquisition>, StoreError> {
    let found = match records.claim(claim).await {
        Ok(ClaimResult::Acquired(attempt)) => return Ok(Some(Acquisition::Acquired { attempt })),
        Ok(ClaimResult::Found(row)) => row,
        #[cfg(any(feature = "mysql", feature = "postgres"))]
        Ok(ClaimResult::Raced) => return Ok(None),
        Err(error) => return budget.absorb(records, error).map(|()| None),
    };
    let assessment = found.assess(claim).map_err(corrupt::<R>)?;
    let (changed, attempt) = match assessment {
        Assessment::Decided(acquisition) => return Ok(Some(acquisition)),
        Assessment::Own => (
            records.write(&Change::Renew(&claim.held())).await,
            found.attempt,
        ),
        Assessment::Free => (
            records.lease(claim, &found).await,
            found.attempt.saturating_add(1),
        ),
    };
    match changed {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(Acquisition::Acquired { attempt })),
        Err(error) => budget.absorb(records, error).map(|()| None),
    }
}

pub(super) async fn write<R: Records>(
    records: &mut R,
    change: Change<'_>,
) -> Result<Write, StoreError> {
    let mut budget = RetryBudget::new();
    loop {
        let answer = match records.write(&change).await {
            Ok(0) => match records.read(change.key()).await {
                Ok(None) => Ok(Some(Write::Missing)),
                Ok(Some(row)) => Ok(row.why_unchanged(change.token(), change.outcome())),
                Err(error) => Err(error),
            },
            Ok(_) => Ok(Some(Write::Applied)),
            Err(error) => Err(error),
        };
        match answer {
            Ok(Some(write)) => return Ok(write),
            Ok(None) => {}
            Err(error) => budget.absorb(records, error)?,
        }
        budget.spend_round::<R>()?;
    }
}

pub(super) async fn get<R: Records>(
    records: &mut R,
    key: &StoreKey,
) -> Result<Option<Record>, StoreError> {
    let mut budget = RetryBudget::new();
    loop {
        match records.read(key).await {
            Ok(Some(row)) => return row.record().map_err(corrupt::<R>),
            Ok(None) => return Ok(None),
            Err(error) => budget.absorb(records, error)?,
        }
        budget.spend_round::<R>()?;
    }
}

pub(super) async fn purge<R: Records>(records: &mut R, limit: usize) -> Result<usize, StoreError> {
    if limit == 0 {
        return Ok(0);
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut budget = RetryBudget::new();
    loop {
        match records.purge(limit).await {
            Ok(purged) => return Ok(usize::try_from(purged).unwrap_or(usize::MAX)),
            Err(error) => budget.absorb(records, error)?,
        }
        budget.spend_round::<R>()?;
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

/// The repetitions that one operation has left.
struct RetryBudget {
    rounds: usize,
    /// How many dead connections the operation met. They are bounded by the size of the pool, not by the rounds.
    dead: usize,
    /// Whether a statement may be repeated that was sent and not answered.
    after_loss: bool,
    last: Option<sqlx::Error>,
}

impl RetryBudget {
    fn new() -> Self {
        Self {
            rounds: ROUNDS,
            dead: 0,
            after_loss: true,
            last: None,
        }
    }

    fn for_acquire() -> Self {
        Self {
            after_loss: false,
            ..Self::new()
        }
    }

    /// Accepts an error after which the step may be repeated, and returns any other.
    fn absorb<R: Records>(&mut self, records: &R, error: sqlx::Error) -> Result<(), StoreError> {
        let verdict = records.classify(&error);
        match verdict.repeat {
            // The answer was lost with a dead connection: the statement may have been executed, whatever the server
            // answers to the repetition.
            Repeat::No if self.dead > 0 => {
                let error =
                    StoreError::new(R::NAME, StoreErrorKind::Unavailable).with_source(error);
                return Err(error);
            }
            Repeat::No => return Err(StoreError::new(R::NAME, verdict.kind).with_source(error)),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Repeat::Raced => {}
            Repeat::Lost { .. } if !self.after_loss => {
                return Err(StoreError::new(R::NAME, verdict.kind).with_source(error));
            }
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Repeat::Ended { connections } if self.has_met(connections) => {
                return Err(StoreError::new(R::NAME, verdict.kind).with_source(error));
            }
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Repeat::Ended { .. } => {}
            Repeat::Lost { connections } if self.has_met(connections) => {
                return Err(StoreError::new(R::NAME, verdict.kind).with_source(error));
            }
            Repeat::Lost { .. } => {}
        }
        self.last = Some(error);
        Ok(())
    }

    /// Counts one more dead connection, and tells whether the operation has met all of them.
    fn has_met(&mut self, connections: usize) -> bool {
        self.dead += 1;
        self.rounds += 1;
        self.dead > connections
    }

    /// Counts a repetition; an error if none is left.
    fn spend_round<R: Records>(&mut self) -> Result<(), StoreError> {
        self.rounds -= 1;
        if self.rounds > 0 {
            return Ok(());
        }
        let error = StoreError::new(R::NAME, StoreErrorKind::Unavailable);
        Err(match self.last.take() {
            Some(last) => error.with_source(last),
            None => error.with_source("the operation lost every race for the record: repeat it"),
        })
    }
}

fn corrupt<R: Records>(error: super::row::Unrecognised) -> StoreError {
    StoreError::new(R::NAME, StoreErrorKind::Corrupt).with_source(error)
}
