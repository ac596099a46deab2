//! [`Operator`]: a person's acts on records, each kept in the store's audit before and after it is done.

use std::fmt::{self, Write as _};

use super::{
    admin::{Resolution, ResolveError},
    core::Idempotency,
};
use crate::{
    hex::Hex,
    observe::StoreOperation,
    scope::StoreKey,
    store::{
        Outcome, Record, RecordState, StoreError, Write,
        admin::{Action, Event, Kept, Seen, Stage},
    },
};

/// Acts on records in the name of a person, for a reason. See [`Idempotency::operator`].
///
/// Each act is appended to the [audit](crate::store::admin) of the store when it begins and when it has ended, and logged
/// as a `tracing` event. An act whose beginning cannot be kept is not done.
#[derive(Debug)]
#[must_use = "an operator does nothing by itself"]
pub struct Operator<'a> {
    engine: &'a Idempotency,
    actor: &'a str,
    reason: &'a str,
}

/// Why an act of an [`Operator`] was not done, or not certainly.
#[derive(Debug)]
#[non_exhaustive]
pub enum OperatorError {
    /// The record could not be resolved.
    Resolve(ResolveError),
    /// There is no completed record to forget: it is in flight, or was made again since it was looked at.
    NotCompleted,
    /// The store keeps no audit and forgets nothing.
    NotAdministrable,
    /// It was done, but the store did not keep that it was.
    DoneWithoutAudit(StoreError),
}

impl Idempotency {
    /// Acts in the name of this person, for this reason.
    pub fn operator<'a>(&'a self, actor: &'a str, reason: &'a str) -> Operator<'a> {
        Operator {
            engine: self,
            actor,
            reason,
        }
    }
}

impl Idempotency {
    /// The newest events of the store's [audit](crate::store::admin), at most `limit`, the newest first.
    ///
    /// # Errors
    ///
    /// [`NotAdministrable`](OperatorError::NotAdministrable) if the store keeps no audit; otherwise when the store fails or
    /// does not answer in time.
    pub async fn audit(&self, limit: usize) -> Result<Vec<Kept>, OperatorError> {
        let client = &self.0.store;
        let events = client.administer(StoreOperation::Events, |store| store.events(limit));
        Ok(events.await.ok_or(OperatorError::NotAdministrable)??)
    }
}

impl Operator<'_> {
    /// [Resolves](Idempotency::resolve) a record whose outcome is unknown.
    ///
    /// # Errors
    ///
    /// See [`OperatorError`].
    pub async fn resolve(
        &self,
        key: &StoreKey,
        resolution: Resolution,
    ) -> Result<(), OperatorError> {
        let (action, after) = match &resolution {
            Resolution::Completed(response) => (
                Action::Resolve,
                format!("completed with status {}", response.status().as_u16()),
            ),
            Resolution::NotExecuted => (Action::Release, "not executed".to_owned()),
        };
        let record = self.record(key).await?;
        // Refused before anything is written: the audit is of what was tried in earnest.
        if matches!(record.state, RecordState::Completed(_)) {
            return Err(ResolveError::AlreadyCompleted.into());
        }
        let act = self.begin(action, key, &record).await?;
        let done = self.engine.resolve(key, resolution).await;
        self.end(act, after, done.map_err(OperatorError::Resolve))
            .await
    }

    /// Deletes a completed record or a tombstone, **so that its key executes again**.
    ///
    /// A process that keeps copies of outcomes (`store::cached`) replays its copy until it expires there.
    ///
    /// # Errors
    ///
    /// See [`OperatorError`].
    pub async fn forget(&self, key: &StoreKey) -> Result<(), OperatorError> {
        let record = self.record(key).await?;
        if !matches!(record.state, RecordState::Completed(_)) {
            return Err(OperatorError::NotCompleted);
        }
        let act = self.begin(Action::Forget, key, &record).await?;
        let seen = Seen::new(*key, record.fingerprint, record.attempt);
        let client = &self.engine.0.store;
        let forgotten = client.administer(StoreOperation::Forget, |store| store.forget(&seen));
        let done = match forgotten.await.ok_or(OperatorError::NotAdministrable)? {
            Ok(Write::Applied) => Ok(()),
            Ok(Write::Fenced) => Err(OperatorError::NotCompleted),
            Ok(Write::Missing) => Err(ResolveError::NotFound.into()),
            Err(error) => Err(error.into()),
        };
        self.end(act, "deleted".to_owned(), done).await
    }

    /// What the store holds under this key, [decompressed and decrypted](Idempotency::inspect), its response included.
    ///
    /// # Errors
    ///
    /// See [`OperatorError`].
    pub async fn reveal(&self, key: &StoreKey) -> Result<Record, OperatorError> {
        let record = self.record(key).await?;
        let act = self.begin(Action::Reveal, key, &record).await?;
        self.end(act, "revealed".to_owned(), Ok(())).await?;
        Ok(record)
    }

    async fn record(&self, key: &StoreKey) -> Result<Record, OperatorError> {
        let record = self.engine.inspect(key).await?;
        Ok(record.ok_or(ResolveError::NotFound)?)
    }

    async fn keep(&self, event: &Event) -> Result<(), OperatorError> {
        let client = &self.engine.0.store;
        let kept = client
            .administer(StoreOperation::Append, |store| store.append(event))
            .await;
        Ok(kept.ok_or(OperatorError::NotAdministrable)??)
    }

    async fn begin(
        &self,
        action: Action,
        key: &StoreKey,
        record: &Record,
    ) -> Result<Event, OperatorError> {
        let event = Event {
            act: Hex(&rand::random::<[u8; 8]>()).to_string().into(),
            actor: self.actor.into(),
            action,
            stage: Stage::Begun,
            record: Hex(key.as_bytes()).to_string().into(),
            endpoint: record.endpoint.as_deref().map(Into::into),
            reason: self.reason.into(),
            before: before(record).into(),
            after: "".into(),
        };
        self.keep(&event).await?;
        Ok(event)
    }

    async fn end(
        &self,
        mut event: Event,
        after: String,
        done: Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        (event.stage, event.after) = match &done {
            Ok(()) => (Stage::Done, after.into()),
            Err(error) => (Stage::Failed, error.to_string().into()),
        };
        tracing::info!(
            act = &*event.act,
            actor = &*event.actor,
            action = %event.action,
            stage = %event.stage,
            record = &event.record[..16],
            endpoint = event.endpoint.as_deref(),
            reason = &*event.reason,
            before = &*event.before,
            after = &*event.after,
            "an operator acted on a record"
        );
        match (done, self.keep(&event).await) {
            (Ok(()), Err(OperatorError::Resolve(ResolveError::Store(error)))) => {
                Err(OperatorError::DoneWithoutAudit(error))
            }
            (done, _) => done,
        }
    }
}

/// The state of the record, without anything that a client sent or got.
fn before(record: &Record) -> String {
    let mut text = match &record.state {
        RecordState::InFlight { remaining } if remaining.is_zero() => "unknown".to_owned(),
        RecordState::InFlight { .. } => "in flight".to_owned(),
        RecordState::Completed(Outcome::Tombstone) => "tombstone".to_owned(),
        RecordState::Completed(Outcome::Response(response)) => match response.decode() {
            Ok((status, ..)) => format!("completed with status {}", status.as_u16()),
            // Sealed, and this engine has no key for it.
            Err(_) => "completed".to_owned(),
        },
    };
    // Writing to a string does not fail.
    let _ = write!(text, ", attempt {}", record.attempt);
    text
}

impl From<ResolveError> for OperatorError {
    fn from(error: ResolveError) -> Self {
        Self::Resolve(error)
    }
}

impl From<StoreError> for OperatorError {
    fn from(error: StoreError) -> Self {
        Self::Resolve(ResolveError::Store(error))
    }
}

impl fmt::Display for OperatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => error.fmt(f),
            Self::NotCompleted => f.write_str(
                "only a completed record can be forgotten, and this one is in flight or was made again",
            ),
            Self::NotAdministrable => f.write_str(
                "the store keeps no audit, so operators cannot act on it: `Idempotency::resolve` does without",
            ),
            Self::DoneWithoutAudit(_) => {
                f.write_str("it was done, but the store did not keep in its audit that it was")
            }
        }
    }
}

impl std::error::Error for OperatorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve(error) => error.source(),
            Self::DoneWithoutAudit(error) => Some(error),
            Self::NotCompleted | Self::NotAdministrable => None,
        }
    }
}
