//! What a handler can ask about the execution that it runs in, and a recovery function about a crashed one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, Method, Request, Response};
use tokio::time::Instant;

use crate::{
    key::IdempotencyKey,
    route::Target,
    scope::{Digester, StoreKey},
};

/// The execution that a handler runs in: its key, its attempt, and whether it still owns the key.
///
/// The engine puts it into the request's extensions. In axum it is an extractor: `Execution` where the key is
/// required, `Option<Execution>` where a request without a key runs unprotected.
pub struct Execution(Arc<Inner>);

struct Inner {
    key: IdempotencyKey,
    store_key: StoreKey,
    attempt: u32,
    /// Makes the keys for downstream services.
    digester: Arc<Digester>,
    /// The request that it serves.
    request: Target,
    /// When the lease was acquired, by this process's clock.
    acquired: Instant,
    /// When it lapses, in microseconds after `acquired`; zero once another execution has taken it over.
    lapses: AtomicU64,
    /// Whether somebody behind the engine asked for the execution, or read the body of the request.
    touched: AtomicBool,
}

impl Clone for Execution {
    fn clone(&self) -> Self {
        self.touch();
        self.again()
    }
}

impl Execution {
    /// An execution without a lease. It stays without one where the handler runs unprotected.
    pub(crate) fn new(
        digester: Arc<Digester>,
        key: IdempotencyKey,
        store_key: StoreKey,
        attempt: u32,
        acquired: Instant,
        request: Target,
    ) -> Self {
        let lapses = AtomicU64::new(0);
        Self(Arc::new(Inner {
            key,
            store_key,
            attempt,
            digester,
            request,
            acquired,
            lapses,
            touched: AtomicBool::new(false),
        }))
    }

    /// The execution in a request's extensions, if it runs under a key.
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        extensions
            .get::<Self>()
            .inspect(|execution| execution.touch())
    }

    /// The key that the client sent. A secret: do not log it.
    #[must_use]
    pub fn key(&self) -> &IdempotencyKey {
        &self.0.key
    }

    /// The fencing token: 1 for the first execution under this key, and one more for each later one. It starts again
    /// at 1 after the key was released (nothing was executed) or has expired.
    ///
    /// Pass it to downstream systems that refuse a lower number than they have seen.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// A key to pass on as the next service's idempotency key.
    ///
    /// It is the same for all attempts and processes, different for each label, and reveals nothing about the client's
    /// key. Use one label for each call that the handler makes: `"stripe"`, `"ledger"`.
    #[must_use]
    pub fn downstream_key(&self, label: &str) -> String {
        self.0.digester.downstream_key(self.0.store_key, label)
    }

    /// The method of the request that it serves.
    pub(crate) fn method(&self) -> &Method {
        self.0.request.method()
    }

    /// Whether a caller step let the request in that it serves.
    pub(crate) fn has_caller(&self) -> bool {
        self.0.request.has_caller()
    }

    /// Whether it is of the engine with these digests.
    pub(crate) fn is_of(&self, digester: &Arc<Digester>) -> bool {
        Arc::ptr_eq(&self.0.digester, digester)
    }

    /// Whether this execution serves this request, in which its route finds this key.
    ///
    /// An engine that meets a request with an execution in its extensions must not claim the key again, which would wait
    /// for itself. That holds for this request only: a handler may copy the extensions into requests of its own, which
    /// have keys, or paths, of their own.
    pub(crate) fn serves<B>(&self, request: &Request<B>, key: Option<&IdempotencyKey>) -> bool {
        self.0.request.is_of(request)
            // A layer may have found the key elsewhere: without one of its own the request is the same.
            && key.is_none_or(|key| key.is_sent_for(&self.0.key))
    }

    /// Another handle, for the engine itself.
    pub(crate) fn again(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Whether this is the same execution.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A handle that says whether anybody asks for the execution from now on.
    pub(crate) fn watch(&self) -> Self {
        self.0.touched.store(false, Ordering::Relaxed);
        self.again()
    }

    /// Somebody behind the engine looked at the request.
    pub(crate) fn touch(&self) {
        self.0.touched.store(true, Ordering::Relaxed);
    }

    /// Whether anybody did since the execution is [watched](Self::watch).
    pub(crate) fn is_touched(&self) -> bool {
        self.0.touched.load(Ordering::Relaxed)
    }

    /// Whether the lease could not be kept: another execution may have taken the key over.
    ///
    /// The engine never aborts a handler for it. Ask before an effect that cannot be undone.
    #[must_use]
    pub fn lease_lost(&self) -> bool {
        let age = self.0.acquired.elapsed().as_micros();
        age >= u128::from(self.0.lapses.load(Ordering::Acquire))
    }

    /// What is left of the lease, by this process's clock.
    pub(crate) fn lease_left(&self) -> Duration {
        let lapses = Duration::from_micros(self.0.lapses.load(Ordering::Acquire));
        lapses.saturating_sub(self.0.acquired.elapsed())
    }

    /// The lease now lasts until this instant.
    pub(crate) fn leased_until(&self, until: Instant) {
        let micros = until.saturating_duration_since(self.0.acquired).as_micros();
        self.0
            .lapses
            .store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Another execution has taken the lease over, or a shutdown has given it away.
    pub(crate) fn lose_lease(&self) {
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

/// A crashed execution, as a recovery function sees it.
///
/// The function runs under a new lease of the key. So one retry at a time, in all processes, asks what happened, and
/// the crashed execution is fenced if it comes back.
#[derive(Debug)]
pub struct Crash {
    execution: Execution,
    request: Request<Bytes>,
}

/// What a recovery function found out.
///
/// Exhaustive: a recovery function that can say something else would need another engine.
#[derive(Debug)]
pub enum Recovery {
    /// The effect happened; this is its response, to be stored and replayed.
    Completed(Response<Bytes>),
    /// The effect did not happen: execute the handler now.
    NotExecuted,
    /// The function cannot know yet: this request gets `outcome_unknown`, and the next retry asks again.
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

    /// The number of the attempt that crashed: a run of the handler or, after a recovery that answered
    /// [`Recovery::StillUnknown`], of this function.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.execution.attempt().saturating_sub(1)
    }

    /// The key that the crashed execution passed on under this label.
    #[must_use]
    pub fn downstream_key(&self, label: &str) -> String {
        self.execution.downstream_key(label)
    }

    /// The head of that retry for extractors, among them that of the execution under whose lease the function runs.
    #[cfg(feature = "axum")]
    pub(crate) fn head(&self) -> http::request::Parts {
        let (mut head, _) = self.request.clone().into_parts();
        head.extensions.insert(self.execution.again());
        head
    }

    /// The retry that found the crash: equal to the first request in everything that the fingerprint covers.
    ///
    /// Its extensions carry what the application's layers inserted, such as a connection pool. A recovery function of
    /// [`#[idempotent]`](macro@crate::idempotent#on_crash) can take it as an argument instead.
    #[must_use]
    pub fn request(&self) -> &Request<Bytes> {
        &self.request
    }
}
