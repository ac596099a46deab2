//! A store of your own: `cargo run --example custom_store`.
//!
//! The simplest thing that keeps the contract of `idempotent_runtime::store`: one map behind one lock. Every
//! verb takes the lock, decides and writes before it lets go, so each is one atomic step. What a database
//! does in one statement stands here in a few lines, in the order of the contract's state machine.
//!
//! It passes the conformance suite (`tests/stores/custom.rs` runs it), which is how to know that a store of
//! your own is correct. What it lacks is what `MemoryStore` adds: bounds, a purge that does not look at every
//! record, and locks that different keys do not share.

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
        Acquisition, Claim, Held, Outcome, Record, RecordState, Store, StoreError, Token, TraceId,
        Wake, Write,
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
            // The same acquire again: its reply was lost.
            row.extend(&claim.held(), now);
            return Ok(Acquisition::Acquired {
                attempt: row.attempt,
            });
        }
        if row.expired(now) {
            return Ok(row.take(claim, now));
        }
        if row.fingerprint != claim.fingerprint {
            return Ok(Acquisition::Mismatch);
        }
        if let Some(outcome) = &row.outcome {
            return Ok(Acquisition::Completed(outcome.clone()));
        }
        if row.lease_until > now {
            return Ok(Acquisition::InFlight {
                remaining: row.lease_until - now,
            });
        }
        if claim.take_over {
            return Ok(row.take(claim, now));
        }
        Ok(Acquisition::Unknown)
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
            // The same completion again: its reply was lost. The retention keeps counting from the first.
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
        lock(&self.engines).push(wake);
    }
}

impl PlainStore {
    /// A write that only the owner of an execution in flight may make.
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

    /// Tells the engines to look again. They would find out by themselves, a little later.
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
            lease_until,
            expires: later(lease_until, claim.ttl),
            outcome: None,
        }
    }

    /// A new lease on a row that is there: the attempt rises, and nothing old is left.
    fn take(&mut self, claim: &Claim, now: Instant) -> Acquisition {
        *self = Self::leased(claim, self.attempt + 1, now);
        Acquisition::Acquired {
            attempt: self.attempt,
        }
    }

    fn extend(&mut self, held: &Held, now: Instant) {
        self.lease_until = later(now, held.lease);
        self.expires = self.expires.max(later(self.lease_until, held.ttl));
    }

    /// The fence: this token's execution is in flight, its lease lapsed or not.
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
    }
}

/// A point in time that no duration can make overflow; thirty years are as good as for ever.
fn later(now: Instant, by: Duration) -> Instant {
    const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    now + by.min(FOR_EVER)
}

/// A panic elsewhere leaves the map whole: no step here stops half-way.
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
