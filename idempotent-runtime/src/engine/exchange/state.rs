//! What one exchange holds.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Request, request::Parts};
use tokio::time::Instant;

use crate::{
    engine::{
        core::{Core, in_flight::Admission},
        detach::DetachState,
        handler::Route,
        reply::{Answer, Reply, refuse, reply},
        run::{Run, lease::Lease},
    },
    execution::Execution,
    fingerprint::Fingerprint,
    key::IdempotencyKey,
    observe::{self, RequestResult},
    policy::{OnCrash, Settings},
    problem::{Problem, ProblemCode},
    scope::StoreKey,
    store::{Claim, Token, TraceId},
};

/// Parsed once: a name that is looked up as text is parsed each time.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request between its arrival and its answer.
///
/// Always boxed: it passes through several futures, and each would have room for a copy of it.
pub(crate) struct Exchange {
    pub(crate) core: Arc<Core>,
    pub(crate) settings: Settings,
    pub(crate) route: Route,
    pub(crate) detach: Arc<DetachState>,
    /// Held from before the claim until the outcome, but not while waiting.
    pub(crate) admission: Option<Admission>,
}

/// A request that was read and identified. Boxed, as an [`Exchange`] is, and for the same reason.
pub(super) struct KeyedRequest {
    pub(super) key: IdempotencyKey,
    pub(super) store_key: StoreKey,
    pub(super) fingerprint: Fingerprint,
    pub(super) head: Parts,
    pub(super) body: Bytes,
}

impl KeyedRequest {
    pub(super) fn into_parts(self: Box<Self>) -> (IdempotencyKey, Request<Bytes>) {
        let Self {
            key, head, body, ..
        } = *self;
        (key, Request::from_parts(head, body))
    }
}

impl Exchange {
    /// A claim with a new token.
    pub(super) fn claim(&self, request: &KeyedRequest) -> Claim {
        let trace = request.head.headers.get(&TRACEPARENT);
        Claim::new(
            request.store_key,
            request.fingerprint,
            Token::random(),
            self.settings.lease,
            self.settings.ttl,
        )
        .take_over(matches!(self.settings.on_crash, OnCrash::Retry))
        .trace_id(trace.and_then(|value| TraceId::from_traceparent(value.as_bytes())))
    }

    /// The execution that owns the key under this claim, which was acquired by an acquire sent at `sent`.
    pub(super) fn run(
        &mut self,
        attempt: u32,
        sent: Instant,
        claim: &Claim,
        key: IdempotencyKey,
    ) -> Box<Run> {
        observe::record_attempt(attempt);
        // Invariant: an exchange is admitted before its acquire is sent.
        let mut admission = self
            .admission
            .take()
            .expect("an acquire is sent only when admitted");
        admission.hold(claim.key, claim.token);
        let core = Arc::clone(&self.core);
        let digester = Arc::clone(&core.digester);
        let execution = Execution::new(digester, key, claim.key, attempt, sent);
        let lease = Lease::new(
            Arc::clone(&core),
            claim.held(),
            execution,
            sent,
            self.settings.max_lifetime,
        );
        Run::new(
            core,
            self.settings.clone(),
            claim.fingerprint,
            lease,
            claim.take_over && attempt > 1,
            admission,
        )
    }

    /// A reply that needs no execution by this request.
    pub(super) fn reply<B>(
        &self,
        answer: Answer,
        waited: bool,
        claim: &Claim,
    ) -> (RequestResult, Reply<B>) {
        reply(&self.core, answer, waited, &claim.binding())
    }

    pub(super) fn refuse<B>(&self, problem: &Problem) -> (RequestResult, Reply<B>) {
        refuse(&self.core, problem)
    }

    pub(super) fn refuse_as<B>(&self, code: ProblemCode) -> (RequestResult, Reply<B>) {
        self.refuse(&code.into())
    }
}
