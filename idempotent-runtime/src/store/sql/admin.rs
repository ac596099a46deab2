//! What operators do: records that are forgotten, and the table of their acts.
//!
//! `migrate` makes the table of acts beside that of the records, also for a table that exists. Its rows are never changed
//! nor deleted by this crate.

use std::time::{Duration, SystemTime};

use super::{
    SqlStore,
    dialect::{Backend as _, Dialect},
    error::Verdict,
    operations::{Access, Records},
    statement::{Parameter, Value, Values},
};
use crate::store::{
    admin::{Administrable, Event, Kept, Seen},
    erased::Operation,
    error::{StoreError, StoreErrorKind},
    record::Write,
};

/// What an operator does.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Appends this JSON object.
    Append(String),
    /// Reads the newest events.
    Events(usize),
    Forget(Seen),
}

/// The answer to an [`Act`].
#[derive(Debug)]
pub(super) enum Told {
    Appended,
    Events(Vec<Kept>),
    Forgotten(Write),
}

impl<D: Dialect> Administrable for SqlStore<D> {
    fn append<'a>(&'a self, event: &'a Event) -> Operation<'a, ()> {
        Box::pin(async move {
            match self.0.administer(Act::Append(event.to_json())).await? {
                Told::Appended => Ok(()),
                other => Err(unexpected::<D>(&other)),
            }
        })
    }

    fn events(&self, limit: usize) -> Operation<'_, Vec<Kept>> {
        Box::pin(async move {
            match self.0.administer(Act::Events(limit)).await? {
                Told::Events(events) => Ok(events),
                other => Err(unexpected::<D>(&other)),
            }
        })
    }

    fn forget<'a>(&'a self, record: &'a Seen) -> Operation<'a, Write> {
        Box::pin(async move {
            match self.0.administer(Act::Forget(*record)).await? {
                Told::Forgotten(write) => Ok(write),
                other => Err(unexpected::<D>(&other)),
            }
        })
    }
}

fn unexpected<D: Dialect>(told: &Told) -> StoreError {
    let error = StoreError::new(D::STORE, StoreErrorKind::Unavailable);
    error.with_source(format!("the answer belongs to another act: {told:?}"))
}

impl<D: Dialect, A: Access<D>> Records<'_, D, A> {
    /// Never repeated by itself: an operator sees the error, and looks.
    pub(super) async fn administer(&mut self, act: &Act) -> Result<Told, StoreError> {
        match act {
            Act::Append(event) => self.append(event).await.map(|()| Told::Appended),
            Act::Events(limit) => self.events(*limit).await.map(Told::Events),
            Act::Forget(seen) => self.forget(seen).await.map(Told::Forgotten),
        }
    }

    async fn append(&mut self, event: &str) -> Result<(), StoreError> {
        let values = Values::new()
            .int(Parameter::Clock, self.clock)
            .with(Parameter::Event, Value::Bytes(Some(event.as_bytes())));
        let appended = self.access.execute(&self.statements.audit.append, &values);
        appended.await.map(drop).map_err(failed::<D>)
    }

    async fn events(&mut self, limit: usize) -> Result<Vec<Kept>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = Values::new().int(Parameter::Limit, limit);
        let rows = self.access.fetch(&self.statements.audit.events, &values);
        let rows = rows.await.map_err(failed::<D>)?;
        let events = rows.iter().map(|row| {
            let at = u64::try_from(D::int(row, 0)?).unwrap_or_default();
            let text = D::bytes(row, 1)?.unwrap_or_default();
            Ok((at, text))
        });
        let events: Result<Vec<_>, sqlx::Error> = events.collect();
        let kept = |(at, text): (u64, Vec<u8>)| {
            let event = Event::from_json(std::str::from_utf8(&text).ok()?)?;
            let at = SystemTime::UNIX_EPOCH + Duration::from_micros(at);
            Some(Kept::new(at, event))
        };
        Ok(events
            .map_err(failed::<D>)?
            .into_iter()
            .filter_map(kept)
            .collect())
    }

    async fn forget(&mut self, seen: &Seen) -> Result<Write, StoreError> {
        let fingerprint = Value::Bytes(Some(seen.fingerprint.as_bytes()));
        let values = Values::new()
            .key(&seen.key)
            .with(Parameter::Fingerprint, fingerprint)
            .int(Parameter::Attempt, seen.attempt.into())
            .int(Parameter::Clock, self.clock);
        let deleted = self.access.execute(&self.statements.forget, &values);
        if deleted.await.map_err(failed::<D>)? > 0 {
            return Ok(Write::Applied);
        }
        let record = self.get(&seen.key).await?;
        Ok(record.map_or(Write::Missing, |_| Write::Fenced))
    }
}

/// What an error of the database means.
fn failed<D: Dialect>(error: sqlx::Error) -> StoreError {
    let Verdict { kind, .. } = D::classify(&error);
    StoreError::new(D::STORE, kind).with_source(error)
}
