//! What a handler can ask about the execution it runs in.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use tokio::time::Instant;

use super::Idempotency;
use crate::{key::IdempotencyKey, scope::StoreKey};

/// The execution a handler runs in: its key, its attempt, and whether it still owns the key.
///
/// The engine puts it into the request's extensions. In axum it is an extractor: `Execution` where the key is
/// required, `Option<Execution>` where a request without a key runs unprotected.
#[derive(Clone)]
pub struct Execution(Arc<Inner>);

struct Inner {
    key: IdempotencyKey,
    store_key: StoreKey,
    attempt: u32,
    engine: Idempotency,
    /// When the lease was acquired, by this process's clock.
    acquired: Instant,
    /// When it lapses, in microseconds from there; zero once it was taken away.
    lapses: AtomicU64,
}

impl Execution {
    /// An execution that holds no lease yet; one that never gets one, runs unprotected.
    pub(crate) fn new(
        engine: Idempotency,
        key: IdempotencyKey,
        store_key: StoreKey,
        attempt: u32,
        acquired: Instant,
    ) -> Self {
        let lapses = AtomicU64::new(0);
        Self(Arc::new(Inner {
            key,
            store_key,
            attempt,
            engine,
            acquired,
            lapses,
        }))
    }

    /// The execution in a request's extensions, if it runs under a key.
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The key that the client sent. A secret: do not log it.
    #[must_use]
    pub fn key(&self) -> &IdempotencyKey {
        &self.0.key
    }

    /// The fencing token: 1 for the first execution under this key, one more with each later one. It starts again
    /// at 1 after the key was released (nothing was executed) or has expired.
    ///
    /// Pass it to downstream systems that refuse a lower number than they have seen.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// A key to pass on as the next service's idempotency key.
    ///
    /// Stable across attempts and processes, different for each label, and no hint at the client's key. Use one
    /// label for each call the handler makes: `"stripe"`, `"ledger"`.
    #[must_use]
    pub fn downstream_key(&self, label: &str) -> String {
        self.0
            .engine
            .digester()
            .downstream_key(self.0.store_key, label)
    }

    /// Whether the lease could not be kept: another execution may have taken the key over.
    ///
    /// Never a forced abort. Ask before an effect that cannot be undone.
    #[must_use]
    pub fn lease_lost(&self) -> bool {
        let age = self.0.acquired.elapsed().as_micros();
        age >= u128::from(self.0.lapses.load(Ordering::Acquire))
    }

    /// The lease now lasts until this instant.
    pub(crate) fn leased_until(&self, until: Instant) {
        let micros = until.saturating_duration_since(self.0.acquired).as_micros();
        self.0
            .lapses
            .store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// The lease was taken away.
    pub(crate) fn lease_taken(&self) {
        self.0.lapses.store(0, Ordering::Release);
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("key", &self.0.store_key)
            .field("attempt", &self.0.attempt)
            .field("lease_lost", &self.lease_lost())
            .finish()
    }
}

/// An execution that vanished, as a recovery function sees it.
///
/// The function runs under a new lease of the key, so that of all retries in all processes one at a time
/// asks, and the vanished execution is fenced should it come back.
#[derive(Debug)]
pub struct Crash {
    execution: Execution,
    request: Request<Bytes>,
}

/// What a recovery function found out.
#[derive(Debug)]
pub enum Recovery {
    /// The effect happened; this is its response, to be stored and replayed.
    Completed(Response<Bytes>),
    /// The effect did not happen: execute the handler now.
    NotExecuted,
    /// It cannot be told yet: this request gets `outcome_unknown`, the next retry asks again.
    StillUnknown,
}

impl Crash {
    pub(crate) fn new(execution: Execution, request: Request<Bytes>) -> Self {
        Self { execution, request }
    }

    /// The key that the client sent. A secret: do not log it.
    #[must_use]
    pub fn key(&self) -> &IdempotencyKey {
        self.execution.key()
    }

    /// The number of the attempt that vanished: a run of the handler or, after a recovery that could not tell
    /// ([`Recovery::StillUnknown`]), of this function.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.execution.attempt().saturating_sub(1)
    }

    /// The key that the vanished execution passed on under this label.
    #[must_use]
    pub fn downstream_key(&self, label: &str) -> String {
        self.execution.downstream_key(label)
    }

    /// The retry that brought the crash to light: equal to the first request in all that the fingerprint covers.
    ///
    /// Its extensions carry what the application's layers inserted, such as a connection pool.
    #[must_use]
    pub fn request(&self) -> &Request<Bytes> {
        &self.request
    }
}
