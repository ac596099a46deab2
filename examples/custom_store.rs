//! A store of your own: `cargo run --example custom_store`.
//!
//! The simplest store that keeps the contract of `idempotent_runtime::store`: one map behind one lock. Every operation
//! decides and writes under the lock, so each is one atomic step. What a database does in one statement takes a few
//! lines here, in the order of the contract's state machine.
//!
//! It passes the conformance suite (`tests/stores/custom.rs` runs it); run the suite for a store of your own too. It
//! lacks what `MemoryStore` adds: bounds, a purge that does not read every record, and locks that different keys do not
//! share.

use std::{
    collections::HashMap,
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router, routing::post};
use idempotent_runtime::{
    Fingerprint, Idempotency, StoreKey, idempotent,
    store::{
        Acquisition, Claim, ClaimMode, EndpointLabel, Held, Outcome, Record, RecordState, Store,
        StoreError, Token, TraceId, Wake, Write,
    },
};
use tokio::{net::TcpListener, time::Instant};

/// Clones share the records, as two handles on one database would.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlainStore {
    rows: Arc<Mutex<HashMap<StoreKey, Row>>>,
    engines: Arc<Mutex<Vec<Wake>>>,
}

#[derive(Clone, Debug)]
struct Row {
    fingerprint: Fingerprint,
    token: Token,
    attempt: u32,
    trace_id: Option<TraceId>,
    endpoint: Option<EndpointLabel>,
    mode: ClaimMode,
    lease_until: Instant,
    expires: Instant,
    /// None while in flight.
    outcome: Option<Outcome>,
}

impl Store for PlainStore {
    fn name(&self) -> &'static str {
        "plain"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        let now = Instant::now();
        let mut rows = lock(&self.rows);
        let Some(row) = rows.get_mut(&claim.key) else {
            rows.insert(claim.key, Row::leased(claim, 1, now));
            return Ok(Acquisition::Acquired { attempt: 1 });
        };
        if row.holds(&claim.token) {
            // The same acquire again, because its reply was lost.
            row.extend(&claim.held(), now);
            return Ok(Acquisition::Acquired {
                attempt: row.attempt,
            });
        }
        if row.expired(now) {
            return Ok(row.claim(claim, now));
        }
        if row.fingerprint != claim.fingerprint {
            return Ok(Acquisition::Mismatch {
                fingerprint: row.fingerprint,
            });
        }
        if let Some(outcome) = &row.outcome {
            return Ok(Acquisition::Completed(outcome.clone()));
        }
        if row.lease_until > now {
            return Ok(Acquisition::InFlight {
                remaining: row.lease_until - now,
                lease: row.token,
            });
        }
        // Only the lease that the caller saw lapse: it may have been taken over since.
        if claim.take_over == Some(row.token) {
            return Ok(row.claim(claim, now));
        }
        Ok(Acquisition::Unknown {
            lease: row.token,
            mode: row.mode,
        })
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        Ok(self.write(&held.key, &held.token, |row| {
            row.extend(held, Instant::now());
        }))
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        let mut rows = lock(&self.rows);
        let Some(row) = rows.get_mut(&held.key) else {
            return Ok(Write::Missing);
        };
        if row.token == held.token && row.outcome.as_ref() == Some(outcome) {
            // The same completion again, because its reply was lost. The ttl counts from the first one.
            return Ok(Write::Applied);
        }
        if !row.holds(&held.token) {
            return Ok(Write::Fenced);
        }
        row.outcome = Some(outcome.clone());
        row.expires = later(Instant::now(), held.ttl);
        drop(rows);
        self.wake(&held.key);
        Ok(Write::Applied)
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let mut rows = lock(&self.rows);
        let write = match rows.get(key) {
            None => Write::Missing,
            Some(row) if row.holds(token) => {
                rows.remove(key);
                Write::Applied
            }
            Some(_) => Write::Fenced,
        };
        drop(rows);
        self.wake(key);
        Ok(write)
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let write = self.write(key, token, |row| {
            row.lease_until = row.lease_until.min(Instant::now());
        });
        self.wake(key);
        Ok(write)
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let now = Instant::now();
        Ok(lock(&self.rows)
            .get(key)
            .filter(|row| !row.expired(now))
            .map(|row| row.show(now)))
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        let now = Instant::now();
        let mut rows = lock(&self.rows);
        let expired: Vec<StoreKey> = rows
            .iter()
            .filter(|(_, row)| row.expired(now))
            .map(|(key, _)| *key)
            .take(limit)
            .collect();
        for key in &expired {
            rows.remove(key);
        }
        Ok(expired.len())
    }

    fn attach(&self, wake: Wake) {
        let mut engines = lock(&self.engines);
        // Engines come and go, as in tests.
        engines.retain(|engine| !engine.is_closed());
        engines.push(wake);
    }
}

impl PlainStore {
    /// A write that is fenced unless this token's execution is in flight.
    fn write(&self, key: &StoreKey, token: &Token, write: impl FnOnce(&mut Row)) -> Write {
        match lock(&self.rows).get_mut(key) {
            None => Write::Missing,
            Some(row) if row.holds(token) => {
                write(row);
                Write::Applied
            }
            Some(_) => Write::Fenced,
        }
    }

    /// Wakes the engines' waiters, which would otherwise poll a little later.
    fn wake(&self, key: &StoreKey) {
        let engines = lock(&self.engines).clone();
        for engine in engines {
            engine.key(key);
        }
    }
}

impl Row {
    fn leased(claim: &Claim, attempt: u32, now: Instant) -> Self {
        let lease_until = later(now, claim.lease);
        Self {
            fingerprint: claim.fingerprint,
            token: claim.token,
            attempt,
            trace_id: claim.trace_id,
            endpoint: claim.endpoint,
            mode: claim.mode,
            lease_until,
            expires: later(lease_until, claim.ttl),
            outcome: None,
        }
    }

    /// A new lease on an existing row: the attempt rises, everything else is replaced.
    fn claim(&mut self, claim: &Claim, now: Instant) -> Acquisition {
        *self = Self::leased(claim, self.attempt + 1, now);
        Acquisition::Acquired {
            attempt: self.attempt,
        }
    }

    fn extend(&mut self, held: &Held, now: Instant) {
        self.lease_until = later(now, held.lease);
        self.expires = self.expires.max(later(self.lease_until, held.ttl));
    }

    /// The fence: whether this token's execution is in flight, even if its lease has lapsed.
    fn holds(&self, token: &Token) -> bool {
        self.token == *token && self.outcome.is_none()
    }

    fn expired(&self, now: Instant) -> bool {
        self.expires <= now && (self.outcome.is_some() || self.lease_until <= now)
    }

    fn show(&self, now: Instant) -> Record {
        let state = match &self.outcome {
            Some(outcome) => RecordState::Completed(outcome.clone()),
            None => RecordState::InFlight {
                remaining: self.lease_until.saturating_duration_since(now),
            },
        };
        let expires_in = self.expires.saturating_duration_since(now);
        Record::new(
            self.fingerprint,
            self.attempt,
            state,
            expires_in,
            self.trace_id,
        )
        .mode(self.mode)
        .endpoint(self.endpoint.map(EndpointLabel::as_str))
    }
}

/// An instant that overflows with no duration: everything beyond thirty years counts as thirty years.
fn later(now: Instant, by: Duration) -> Instant {
    const THIRTY_YEARS: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    now + by.min(THIRTY_YEARS)
}

/// Ignores poisoning: no operation panics between two writes, so the map is always consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[idempotent(ttl = "1h")]
async fn draw(Extension(drawn): Extension<Arc<AtomicU32>>) -> String {
    format!("number {}\n", drawn.fetch_add(1, Ordering::Relaxed) + 1)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let idempotency = Idempotency::builder()
        .store(PlainStore::default())
        .build()?;
    let app = Router::new()
        .route("/numbers", post(draw))
        .layer(Extension(Arc::new(AtomicU32::new(0))))
        .layer(Extension(idempotency));
    let listener = TcpListener::bind("127.0.0.1:8000").await?;
    println!("curl -i -X POST 127.0.0.1:8000/numbers -H 'idempotency-key: one'   (twice)");
    axum::serve(listener, app).await?;
    Ok(())
}
