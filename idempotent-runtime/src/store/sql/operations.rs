//! The operations, as all databases share them: what a statement's answer means, and when to ask again.
//!
//! A database brings the statements ([`Records`]); each is one atomic step. What several of them amount to
//! is decided here, once:
//!
//! 1. `acquire` asks [`Records::claim`]. If the record it shows is free, [`Records::lease`] takes it only as
//!    it was seen. Whoever comes second sees another token and starts again from the claim.
//! 2. A fenced write that changed nothing is explained by a look at the record.
//! 3. Races make a step void, not wrong: then it is repeated, with the same token, a few times.

use super::{
    error::{Repeat, Verdict},
    row::{Row, Weighed},
};
use crate::{
    scope::StoreKey,
    store::{
        error::{StoreError, StoreErrorKind},
        record::{Acquisition, Claim, Held, Outcome, Record, Write},
        token::Token,
    },
};

/// How often a step is begun anew because another one came in between. Each void step means that somebody
/// else changed the record, so that even 64 contenders need two or three.
const ROUNDS: usize = 8;

/// The statements of one database. Each is one atomic step on one record.
pub(super) trait Records: Send {
    /// The store's name, for errors.
    const NAME: &'static str;

    /// Leases the key to the claim if there is no record, or shows the record.
    fn claim(&mut self, claim: &Claim)
    -> impl Future<Output = Result<Claimed, sqlx::Error>> + Send;

    /// Leases the record to the claim if it still is as it was seen. The number of rows changed.
    fn lease(
        &mut self,
        claim: &Claim,
        seen: &Row,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// The record, also if it has expired.
    fn read(
        &mut self,
        key: &StoreKey,
    ) -> impl Future<Output = Result<Option<Row>, sqlx::Error>> + Send;

    /// Changes the record if the token holds it and it is in flight. The number of rows changed.
    fn write(
        &mut self,
        change: &Change<'_>,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Deletes at most this many expired records.
    fn purge(&mut self, limit: i64) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// What a failure means, and whether to try again right away.
    fn judge(&self, error: &sqlx::Error) -> Verdict;
}

/// The answer of [`Records::claim`].
pub(super) enum Claimed {
    /// Leased to the claim, as this attempt.
    Won(u32),
    /// There is a record.
    Seen(Row),
    /// The record came or went in the middle of the statement.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    Void,
}

/// A write that only the holder of the token may make.
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
    let mut patience = Patience::new();
    loop {
        match step(records, claim, &mut patience).await? {
            Some(acquisition) => return Ok(acquisition),
            None => patience.spend::<R>()?,
        }
    }
}

/// One step of an acquire; `None` if it was void.
async fn step<R: Records>(
    records: &mut R,
    claim: &Claim,
    patience: &mut Patience,
) -> Result<Option<Acquisition>, StoreError> {
    let seen = match records.claim(claim).await {
        Ok(Claimed::Won(attempt)) => return Ok(Some(Acquisition::Acquired { attempt })),
        Ok(Claimed::Seen(row)) => row,
        #[cfg(any(feature = "mysql", feature = "postgres"))]
        Ok(Claimed::Void) => return Ok(None),
        Err(error) => return patience.bear(records, error).map(|()| None),
    };
    let weighed = seen.weigh(claim).map_err(corrupt::<R>)?;
    let (changed, attempt) = match weighed {
        Weighed::Decided(acquisition) => return Ok(Some(acquisition)),
        Weighed::Own => (
            records.write(&Change::Renew(&claim.held())).await,
            seen.attempt,
        ),
        Weighed::Free => (
            records.lease(claim, &seen).await,
            seen.attempt.saturating_add(1),
        ),
    };
    match changed {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(Acquisition::Acquired { attempt })),
        Err(error) => patience.bear(records, error).map(|()| None),
    }
}

pub(super) async fn write<R: Records>(
    records: &mut R,
    change: Change<'_>,
) -> Result<Write, StoreError> {
    let mut patience = Patience::new();
    loop {
        let explained = match records.write(&change).await {
            Ok(0) => match records.read(change.key()).await {
                Ok(None) => Ok(Some(Write::Missing)),
                Ok(Some(row)) => Ok(row.missed(change.token(), change.outcome())),
                Err(error) => Err(error),
            },
            Ok(_) => Ok(Some(Write::Applied)),
            Err(error) => Err(error),
        };
        match explained {
            Ok(Some(write)) => return Ok(write),
            Ok(None) => {}
            Err(error) => patience.bear(records, error)?,
        }
        patience.spend::<R>()?;
    }
}

pub(super) async fn get<R: Records>(
    records: &mut R,
    key: &StoreKey,
) -> Result<Option<Record>, StoreError> {
    let mut patience = Patience::new();
    loop {
        match records.read(key).await {
            Ok(Some(row)) => return row.record().map_err(corrupt::<R>),
            Ok(None) => return Ok(None),
            Err(error) => patience.bear(records, error)?,
        }
        patience.spend::<R>()?;
    }
}

pub(super) async fn purge<R: Records>(records: &mut R, limit: usize) -> Result<usize, StoreError> {
    if limit == 0 {
        return Ok(0);
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut patience = Patience::new();
    loop {
        match records.purge(limit).await {
            Ok(purged) => return Ok(usize::try_from(purged).unwrap_or(usize::MAX)),
            Err(error) => patience.bear(records, error)?,
        }
        patience.spend::<R>()?;
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

/// How much is left of the rounds of one operation.
struct Patience {
    rounds: usize,
    /// Connections that turned out to be dead are bounded by how many there can be, not by the rounds.
    dead: usize,
    last: Option<sqlx::Error>,
}

impl Patience {
    fn new() -> Self {
        Self {
            rounds: ROUNDS,
            dead: 0,
            last: None,
        }
    }

    /// Takes an error that a repetition may do away with.
    fn bear<R: Records>(&mut self, records: &R, error: sqlx::Error) -> Result<(), StoreError> {
        let verdict = records.judge(&error);
        match verdict.repeat {
            // A connection that died took an answer with it: what was asked may have been done, whatever the server
            // says of the repetition.
            Repeat::No if self.dead > 0 => {
                let error =
                    StoreError::new(R::NAME, StoreErrorKind::Unavailable).with_source(error);
                return Err(error);
            }
            Repeat::No => return Err(StoreError::new(R::NAME, verdict.kind).with_source(error)),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Repeat::Raced => {}
            Repeat::Dead { connections } => {
                self.dead += 1;
                if self.dead > connections {
                    return Err(StoreError::new(R::NAME, verdict.kind).with_source(error));
                }
                self.rounds += 1;
            }
        }
        self.last = Some(error);
        Ok(())
    }

    fn spend<R: Records>(&mut self) -> Result<(), StoreError> {
        self.rounds -= 1;
        if self.rounds > 0 {
            return Ok(());
        }
        let error = StoreError::new(R::NAME, StoreErrorKind::Unavailable);
        Err(match self.last.take() {
            Some(last) => error.with_source(last),
            None => error.with_source("others changed the record again and again"),
        })
    }
}

fn corrupt<R: Records>(damaged: super::row::Damaged) -> StoreError {
    StoreError::new(R::NAME, StoreErrorKind::Corrupt).with_source(damaged)
}
