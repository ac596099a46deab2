//! What a handler can ask about the execution that it runs in, and a recovery function about a crashed one.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Extensions, Request, Response};

use crate::{engine::core::lease::Lease, key::IdempotencyKey, route::Routing, scope::Digester};

/// The execution that a handler runs in: its key, its attempt, and whether it still owns the key.
///
/// The engine puts it into the request's extensions. In axum it is an extractor: `Execution` where the key is
/// required, `Option<Execution>` where a request without a key runs unprotected.
pub struct Execution(Arc<Lease>);

impl Clone for Execution {
    fn clone(&self) -> Self {
        self.touch();
        self.again()
    }
}

impl Execution {
    /// A handle on the execution under this lease.
    pub(crate) fn new(lease: Arc<Lease>) -> Self {
        Self(lease)
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
        self.0.key()
    }

    /// The fencing token: 1 for the first execution under this key, and one more for each later one. It starts again
    /// at 1 after the key was released (nothing was executed) or has expired.
    ///
    /// Pass it to downstream systems that refuse a lower number than they have seen.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt()
    }

    /// A key to pass on as the next service's idempotency key.
    ///
    /// It is the same for all attempts and processes, different for each label, and reveals nothing about the client's
    /// key. Use one label for each call that the handler makes: `"stripe"`, `"ledger"`.
    #[must_use]
    pub fn downstream_key(&self, label: &str) -> String {
        self.0.downstream_key(label)
    }

    /// Whether a caller step let the request in that it serves.
    pub(crate) fn has_caller(&self) -> bool {
        self.0.has_caller()
    }

    /// Whether it is of the engine with these digests.
    pub(crate) fn is_of(&self, digester: &Arc<Digester>) -> bool {
        self.0.is_of(digester)
    }

    /// Whether this execution serves this request, in which its route finds this key.
    ///
    /// An engine that meets a request with an execution in its extensions must not claim the key again, which would wait
    /// for itself. That holds for this request only: a handler may copy the extensions into requests of its own, which
    /// have keys, or paths, of their own.
    pub(crate) fn serves<B>(
        &self,
        request: &Request<B>,
        routing: &Routing,
        key: Option<&IdempotencyKey>,
    ) -> bool {
        self.0.serves(request, routing, key)
    }

    /// The lease that it runs under.
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.0
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
        self.0.set_touched(false);
        self.again()
    }

    /// Somebody behind the engine looked at the request.
    pub(crate) fn touch(&self) {
        self.0.set_touched(true);
    }

    /// Whether anybody did since the execution is [watched](Self::watch).
    pub(crate) fn is_touched(&self) -> bool {
        self.0.is_touched()
    }

    /// Whether the lease could not be kept: another execution may have taken the key over.
    ///
    /// The engine never aborts a handler for it. Ask before an effect that cannot be undone.
    #[must_use]
    pub fn lease_lost(&self) -> bool {
        self.0.is_lost()
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("key", &self.0.held().key)
            .field("attempt", &self.attempt())
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
