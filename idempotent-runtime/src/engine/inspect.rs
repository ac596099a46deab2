//! Looking at records, and settling those whose outcome nobody knows.

use bytes::Bytes;
use http::Response;

use super::{Idempotency, wait::Verdict};
use tokio::time::Instant;

use crate::{
    key::IdempotencyKey,
    policy::Policy,
    response::{Binding, NotStorable, StoredResponse},
    scope::{Scope, StoreKey},
    store::{Acquisition, Claim, Outcome, Record, RecordState, StoreError, Token, Write},
};

/// What somebody found out about an execution whose outcome was unknown.
#[derive(Debug)]
pub enum Resolution {
    /// The effect happened; this is its response, to be stored and replayed.
    Completed(Response<Bytes>),
    /// The effect did not happen: the next retry executes.
    NotExecuted,
}

/// Why a record was not resolved.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no record, or it has expired.
    NotFound,
    /// Its execution is in flight: it may still complete by itself.
    InFlight,
    /// Its outcome is known already.
    AlreadyCompleted,
    /// The response is larger than a stored one may be.
    NotStorable(NotStorable),
    /// The store failed.
    Store(StoreError),
}

impl Idempotency {
    /// The identity of a record: endpoint as in [`Policy::name`](crate::Policy::name) or `POST /orders/{id}`, scope,
    /// and the client's key.
    #[must_use]
    pub fn store_key(
        &self,
        endpoint: &str,
        scope: Option<&Scope>,
        key: &IdempotencyKey,
    ) -> StoreKey {
        self.digester().store_key(endpoint, scope, key)
    }

    /// What the store holds under this key, decompressed and decrypted; `None` when it is absent or expired.
    ///
    /// # Errors
    ///
    /// When the store fails or does not answer in time.
    pub async fn inspect(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let mut record = self.ops().get(key).await?;
        if let Some(Record {
            fingerprint,
            state: RecordState::Completed(Outcome::Response(response)),
            ..
        }) = &mut record
        {
            let binding = Binding {
                key: *key,
                fingerprint: *fingerprint,
            };
            // One that does not open is shown as it is stored.
            if let Ok(opened) = self.sealer().open(response, &binding) {
                *response = opened;
            }
        }
        Ok(record)
    }

    /// Settles a record whose outcome is unknown: its lease lapsed and no outcome was stored.
    ///
    /// The vanished execution is fenced first, so that it cannot contradict the resolution later. The outcome is
    /// kept for `ttl`, as the engine's default policy says.
    ///
    /// # Errors
    ///
    /// See [`ResolveError`]. After an error the record is as before or, if somebody else or a failure of the store
    /// came in between, unknown under a new attempt; calling again is safe.
    pub async fn resolve(
        &self,
        key: &StoreKey,
        resolution: Resolution,
    ) -> Result<(), ResolveError> {
        let record = self.ops().get(key).await?.ok_or(ResolveError::NotFound)?;
        let outcome = match resolution {
            Resolution::NotExecuted => None,
            Resolution::Completed(response) => {
                let (head, body) = response.into_parts();
                let limits = self.response_limits(&self.settings(&Policy::new()));
                let stored = StoredResponse::encode(&head, &body, &limits);
                let stored = stored.map_err(ResolveError::NotStorable)?;
                let binding = Binding {
                    key: *key,
                    fingerprint: record.fingerprint,
                };
                Some(Outcome::Response(self.sealer().seal(stored, &binding)))
            }
        };
        let claim = self.take_over(key, &record).await?;
        let held = claim.held();
        let written = match &outcome {
            Some(outcome) => self.ops().complete(&held, outcome).await?,
            None => self.ops().release(key, &claim.token).await?,
        };
        match written {
            Write::Applied => {}
            Write::Fenced => return Err(ResolveError::InFlight),
            Write::Missing => return Err(ResolveError::NotFound),
        }
        match outcome {
            Some(outcome) => self.wait_room().publish(key, || Verdict::Completed {
                fingerprint: record.fingerprint,
                outcome,
            }),
            None => self.wait_room().poke(key),
        }
        Ok(())
    }

    /// Deletes at most `limit` expired records and says how many.
    ///
    /// # Errors
    ///
    /// When the store fails or does not answer in time.
    pub async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.ops().purge_expired(limit).await
    }

    async fn take_over(&self, key: &StoreKey, record: &Record) -> Result<Claim, ResolveError> {
        match record.state {
            RecordState::Completed(_) => return Err(ResolveError::AlreadyCompleted),
            RecordState::InFlight { remaining } if !remaining.is_zero() => {
                return Err(ResolveError::InFlight);
            }
            RecordState::InFlight { .. } => {}
        }
        let settings = self.settings(&Policy::new());
        let claim = Claim::new(
            *key,
            record.fingerprint,
            Token::random(),
            settings.lease,
            settings.ttl,
        )
        .take_over(true)
        .trace_id(record.trace_id);
        let acquired = self.ops().acquire(&claim, Instant::now()).await;
        let acquired = acquired.map_err(|unclaimed| {
            if unclaimed.doubtful {
                // It may be ours now, and nobody will resolve it with this token.
                self.withdraw(claim.held(), true);
            }
            unclaimed.error
        });
        match acquired? {
            Acquisition::Acquired { .. } => Ok(claim),
            Acquisition::Completed(_) => Err(ResolveError::AlreadyCompleted),
            // Somebody else was faster.
            Acquisition::InFlight { .. } | Acquisition::Unknown => Err(ResolveError::InFlight),
            Acquisition::Mismatch => Err(ResolveError::NotFound),
        }
    }
}

impl From<StoreError> for ResolveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl std::fmt::Display for ResolveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotFound => "there is no record under this key, or it has expired",
            Self::InFlight => {
                "the record's execution is in flight and may complete by itself; wait for its lease"
            }
            Self::AlreadyCompleted => "the record's outcome is already known",
            Self::NotStorable(_) => "the response cannot be stored",
            Self::Store(_) => "the store failed",
        })
    }
}

impl std::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotStorable(error) => Some(error),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}
