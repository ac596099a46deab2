//! What one exchange holds.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Request, request::Parts};
use tokio::time::Instant;

use crate::{
    engine::{
        FoundKey,
        core::{Core, doubt::Doubt, in_flight::Admission, lease::Lease},
        detach::DetachState,
        reply::{Answer, Refused, Reply, conflict, refuse, reply},
        run::Run,
    },
    execution::Execution,
    fingerprint::Fingerprint,
    key::IdempotencyKey,
    observe::{self, RequestResult},
    policy::{OnCrash, Settings},
    problem::{Problem, ProblemCode},
    route::Route,
    scope::{Digester, StoreKey},
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
    /// Where the key is; taken when it is read.
    pub(crate) found: FoundKey,
    pub(crate) detach: Arc<DetachState>,
    /// Held from before the claim until the outcome, but not while waiting.
    pub(crate) admission: Option<Admission>,
    /// The bytes of the request's body, which it keeps while it waits.
    pub(crate) waiting_bytes: usize,
    /// When waiting ends; set when it begins.
    pub(crate) deadline: Option<Instant>,
    /// For a refusal, if an execution around this one serves the same request.
    pub(crate) refused: Option<Refused>,
}

/// A request that was read and identified. Boxed, as an [`Exchange`] is, and for the same reason.
pub(super) struct KeyedRequest {
    pub(super) key: IdempotencyKey,
    pub(super) store_key: StoreKey,
    pub(super) fingerprint: Fingerprint,
    /// Where its record may be, too, while the secret is rotated.
    pub(super) elsewhere: Option<Box<Elsewhere>>,
    pub(super) head: Parts,
    pub(super) body: Bytes,
}

/// The claim of one request, and what is not known about it.
pub(super) struct Claiming {
    pub(super) claim: Claim,
    pub(super) doubt: Doubt,
    pub(super) elsewhere: Option<Box<Elsewhere>>,
}

/// Where a record may be that the claim does not name, while the secret is rotated.
#[derive(Clone, Copy)]
pub(super) struct Elsewhere {
    pub(super) key: StoreKey,
    pub(super) fingerprint: Fingerprint,
    /// Whether this is the record of the own secret. Then the claim names that of the other one.
    pub(super) is_own: bool,
}

/// An execution that may start.
pub(super) struct Started {
    pub(super) run: Box<Run>,
    pub(super) claim: Claim,
    pub(super) request: Request<Bytes>,
}

/// Another execution of this process has the key. With the duration after which a retry makes sense.
pub(super) struct Beside(pub(super) std::time::Duration);

impl KeyedRequest {
    pub(super) fn into_parts(self: Box<Self>) -> (IdempotencyKey, Request<Bytes>) {
        let Self {
            key, head, body, ..
        } = *self;
        (key, Request::from_parts(head, body))
    }
}

impl Elsewhere {
    /// The records of the own secret and of the other one.
    pub(super) fn own_and_other(&self, claim: &Claim) -> (StoreKey, StoreKey) {
        if self.is_own {
            (self.key, claim.key)
        } else {
            (claim.key, self.key)
        }
    }

    /// The fingerprint under the own secret.
    pub(super) fn own_fingerprint(&self, claim: &Claim) -> Fingerprint {
        if self.is_own {
            self.fingerprint
        } else {
            claim.fingerprint
        }
    }
}

impl Exchange {
    /// A claim with a new token.
    fn claim(&self, request: &KeyedRequest) -> Claim {
        let trace = request.head.headers.get(&TRACEPARENT);
        Claim::new(
            request.store_key,
            request.fingerprint,
            Token::random(),
            self.settings.lease,
            self.settings.ttl,
        )
        .trace_id(trace.and_then(|value| TraceId::from_traceparent(value.as_bytes())))
    }

    /// The claim of this request, and no doubt about it yet.
    pub(super) fn claiming(&self, request: &mut KeyedRequest) -> Box<Claiming> {
        let claim = self.claim(request);
        Box::new(Claiming {
            doubt: self.no_doubt(&claim),
            claim,
            elsewhere: request.elsewhere.take(),
        })
    }

    /// No doubt yet about a claim with a new token.
    pub(super) fn no_doubt(&self, claim: &Claim) -> Doubt {
        let takes_over = !matches!(self.settings.on_crash, OnCrash::Refuse);
        Doubt::new(&self.core, claim, takes_over)
    }

    /// What the record of this claim was named with.
    pub(super) fn digester(&self, claiming: &Claiming) -> Arc<Digester> {
        let other = self.core.other_digester.as_ref();
        let elsewhere = claiming.elsewhere.as_deref();
        let other = other.filter(|_| elsewhere.is_some_and(|elsewhere| elsewhere.is_own));
        Arc::clone(other.unwrap_or(&self.core.digester))
    }

    /// The execution that owns the key under this claim, by an acquire that was sent at `sent`. `Err` if this process
    /// executes the key already, which the record does not show when it has expired meanwhile: the claim is given back.
    pub(super) fn run(
        &mut self,
        attempt: u32,
        sent: Instant,
        claiming: Box<Claiming>,
        request: Box<KeyedRequest>,
    ) -> Result<Started, Beside> {
        observe::record_attempt(attempt);
        let digester = self.digester(&claiming);
        let Claiming { claim, doubt, .. } = *claiming;
        let (key, request) = request.into_parts();
        // Invariant: an exchange is admitted before its acquire is sent.
        let mut admission = self
            .admission
            .take()
            .expect("an acquire is sent only when admitted");
        let core = Arc::clone(&self.core);
        let execution = Execution::new(
            digester,
            key,
            claim.key,
            attempt,
            sent,
            self.route.target(&request),
        );
        let lease = Lease::new(
            claim.held(),
            claim.fingerprint,
            execution,
            sent,
            self.settings.max_lifetime,
            Arc::clone(self.detach.place()),
        );
        if !admission.hold(Arc::clone(&lease)) {
            return Err(Beside(lease.held().lease));
        }
        let run = Box::new(Run {
            core,
            settings: self.settings.clone(),
            lease,
            doubt,
            detach: Arc::clone(&self.detach),
            admission,
            ttl: None,
        });
        Ok(Started {
            run,
            claim,
            request,
        })
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

    pub(super) fn conflict<B>(&self, remaining: std::time::Duration) -> (RequestResult, Reply<B>) {
        self.refuse(&conflict(remaining))
    }
}
