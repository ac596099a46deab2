//! What operators do: find, list and read records, resolve one whose outcome is unknown, purge what has expired.

use bytes::Bytes;
use http::Response;
use tokio::time::Instant;

use super::{
    core::{Core, Idempotency, doubt::Doubt},
    reply::first_hand,
    wait::Verdict,
};

use crate::{
    key::IdempotencyKey,
    observe::{self, Resolved},
    policy::Policy,
    response::{Binding, NotStorable, StoredResponse},
    scope::{Scope, StoreKey},
    store::{
        Acquisition, Claim, EndpointLabel, Inspectable, Outcome, Record, RecordState, StoreError,
        Token, Write,
        inspect::{self, Cursor, Found, KeyPrefix, Page, Query, Stats},
    },
};

/// What an operator found out about an execution whose outcome was unknown.
///
/// Exhaustive: an effect happened or it did not.
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
    /// The response is larger than a stored one may be, or its status is no final one.
    NotStorable(NotStorable),
    /// The store failed.
    Store(StoreError),
}

impl Idempotency {
    /// The identity of a record: endpoint as in [`Policy::name`](crate::Policy::name) or `POST /orders/{id}` with any
    /// names of parameters (`POST unmatched` for a fallback), scope, and the client's key.
    #[must_use]
    pub fn store_key(
        &self,
        endpoint: &str,
        scope: Option<&Scope>,
        key: &IdempotencyKey,
    ) -> StoreKey {
        self.0.digester.store_key(endpoint, scope, key)
    }

    /// The identity that the same record has if it was made under the other secret, while the secret is
    /// [rotated](crate::guide::secrets); `None` at all other times.
    #[must_use]
    pub fn other_store_key(
        &self,
        endpoint: &str,
        scope: Option<&Scope>,
        key: &IdempotencyKey,
    ) -> Option<StoreKey> {
        let other = self.0.other_digester.as_ref()?;
        Some(other.store_key(endpoint, scope, key))
    }

    /// What the store holds under this key, decompressed and decrypted; `None` when it is absent or expired.
    ///
    /// # Errors
    ///
    /// When the store fails or does not answer in time.
    pub async fn inspect(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let mut record = self.0.store.get(key).await?;
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
            // A response that cannot be opened is shown as it is stored.
            if let Ok(opened) = self.0.sealer.open(response, &binding) {
                *response = opened;
            }
        }
        Ok(record)
    }

    /// Finds the record whose key begins with these digits, as logs and spans print them.
    ///
    /// A store with ordered keys finds it at once. Redis and memory look at their records page by page, so a large store may
    /// take seconds; each page has the store time-out.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use idempotent_runtime::{Idempotency, store::inspect::Found};
    ///
    /// let idempotency = Idempotency::builder().build()?;
    /// match idempotency.find("4bbc9b9eb9514f7c".parse()?).await? {
    ///     Found::One(entry) => println!("{:?} since {:?}", entry.state, entry.created_at),
    ///     Found::Several(entries) => println!("{} records: give more digits", entries.len()),
    ///     Found::None => println!("no record: it expired, or was never claimed"),
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotInspectable`](crate::store::StoreErrorKind::NotInspectable) if the store lists no records; otherwise when the
    /// store fails or does not answer in time.
    pub async fn find(&self, prefix: KeyPrefix) -> Result<Found, StoreError> {
        inspect::find(&self.0.store.lists()?, prefix).await
    }

    /// One page of the records that match, without their responses. See [`inspect`](crate::store::inspect) for what a page
    /// promises.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find), and [`InvalidCursor`](crate::store::StoreErrorKind::InvalidCursor) for a cursor that the
    /// store did not give.
    pub async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        self.0.store.lists()?.list(query).await
    }

    /// Counts the records by state, from this cursor on (`None`: from the beginning), looking at no more than `max_scan` of
    /// them. [`Stats`] say which share of the store that was, and estimate the rest.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn stats(
        &self,
        cursor: Option<&Cursor>,
        max_scan: usize,
    ) -> Result<Stats, StoreError> {
        self.0.store.lists()?.stats(cursor, max_scan).await
    }

    /// What the store lists, each page under the engine's time-out.
    #[cfg(feature = "admin")]
    pub(crate) fn lists(&self) -> Result<impl Inspectable, StoreError> {
        self.0.store.lists()
    }

    /// The name of the store.
    #[cfg(feature = "admin")]
    pub(crate) fn store_name(&self) -> &'static str {
        self.0.store.store().name()
    }

    /// Whether the admin routes change and reveal records.
    #[cfg(feature = "admin")]
    pub(crate) fn admin_writes(&self) -> bool {
        self.0.admin_writes
    }

    /// Resolves a record whose outcome is unknown: its lease lapsed and no outcome was stored.
    ///
    /// The crashed execution is fenced first, so that it cannot contradict the resolution later. The outcome is
    /// kept for `ttl`, as the engine's default policy says.
    ///
    /// # Errors
    ///
    /// See [`ResolveError`]. After an error the record is as before or, if another caller or a failure of the store
    /// intervened, unknown under a new attempt; calling again is safe.
    pub async fn resolve(
        &self,
        key: &StoreKey,
        resolution: Resolution,
    ) -> Result<(), ResolveError> {
        let record = self.0.store.get(key).await?.ok_or(ResolveError::NotFound)?;
        let outcome = match resolution {
            Resolution::NotExecuted => None,
            Resolution::Completed(response) => {
                let (head, body) = first_hand(&self.0, response).into_parts();
                if head.status.is_informational() {
                    return Err(ResolveError::NotStorable(NotStorable::NotFinal));
                }
                let settings = self.0.settings(&Policy::new());
                let limits = self.0.response_limits(&settings);
                let chosen = settings.stored_headers.as_ref();
                let stored = StoredResponse::encode(&head, &body, &limits, chosen, None);
                let stored = stored.map_err(ResolveError::NotStorable)?;
                let binding = Binding {
                    key: *key,
                    fingerprint: record.fingerprint,
                };
                Some(Outcome::Response(self.0.sealer.seal(stored, &binding)))
            }
        };
        let (claim, mut doubt) = take_over(&self.0, key, &record).await?;
        let held = claim.held();
        let written = match &outcome {
            Some(outcome) => self.0.store.complete(&held, outcome).await?,
            None => self.0.store.release(key, &claim.token).await?,
        };
        match written {
            Write::Applied => {}
            Write::Fenced => return Err(ResolveError::InFlight),
            Write::Missing => return Err(ResolveError::NotFound),
        }
        observe::resolved(match &outcome {
            Some(_) => Resolved::Completed,
            None => Resolved::NotExecuted,
        });
        if outcome.is_some() {
            doubt.end();
        }
        doubt.given_up(true, true);
        match outcome {
            Some(outcome) => self.0.wait_queues.publish(key, || Verdict::Completed {
                fingerprint: record.fingerprint,
                outcome,
            }),
            None => self.0.wait_queues.notify(key),
        }
        Ok(())
    }

    /// Describes every metric to the recorder of the `metrics` facade, and has those counters begin at zero whose labels
    /// are known; [`Builder::build`](crate::Builder::build) does the same.
    ///
    /// Call it after a recorder was installed that was not there at the build. Without it such a recorder gets everything
    /// that happens from then on, but no descriptions, and a counter appears with its first increment, which `rate()` does
    /// not see. Calling it again changes nothing.
    #[cfg(feature = "metrics")]
    pub fn describe_metrics(&self) {
        self.0.begin_metrics();
    }

    /// Deletes at most `limit` expired records and says how many.
    ///
    /// # Errors
    ///
    /// When the store fails or does not answer in time.
    pub async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.0.store.purge_expired(limit).await
    }
}

/// Claims a record whose lease has lapsed, so that the crashed execution is fenced.
async fn take_over(
    core: &std::sync::Arc<Core>,
    key: &StoreKey,
    record: &Record,
) -> Result<(Claim, Doubt), ResolveError> {
    match record.state {
        RecordState::Completed(_) => return Err(ResolveError::AlreadyCompleted),
        RecordState::InFlight { remaining } if !remaining.is_zero() => {
            return Err(ResolveError::InFlight);
        }
        RecordState::InFlight { .. } => {}
    }
    if core.in_flight.lease(key).is_some() {
        return Err(ResolveError::InFlight);
    }
    let settings = core.settings(&Policy::new());
    let mut claim = Claim::new(
        *key,
        record.fingerprint,
        Token::random(),
        settings.lease,
        settings.ttl,
    )
    .trace_id(record.trace_id)
    .endpoint(record.endpoint.as_deref().and_then(EndpointLabel::new))
    .mode(record.mode);
    let mut doubt = Doubt::new(core, &claim, true);
    // First without a take-over, to see which lease lapsed; then that one.
    for _ in 0..2 {
        doubt.sending(&claim, Instant::now());
        let reply = core.store.acquire(&claim, || false).await;
        doubt.returned(reply.unanswered || reply.result.is_err());
        match reply.result? {
            Acquisition::Acquired { .. } if claim.take_over.is_some() => {
                doubt.start();
                return Ok((claim, doubt));
            }
            // The record expired or was released in the meantime.
            Acquisition::Acquired { .. } => {
                doubt.acquired();
                return Err(ResolveError::NotFound);
            }
            Acquisition::Unknown { lease, .. } if !core.in_flight.is_own(&lease) => {
                claim.take_over = Some(lease);
            }
            Acquisition::Completed(_) => return Err(ResolveError::AlreadyCompleted),
            // Another caller was faster.
            Acquisition::InFlight { .. } | Acquisition::Unknown { .. } => break,
            Acquisition::Mismatch { .. } => return Err(ResolveError::NotFound),
        }
    }
    Err(ResolveError::InFlight)
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
