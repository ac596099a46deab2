//! What one exchange holds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Request, Uri, request::Parts};
use tokio::time::Instant;

use crate::{
    credentials::signing_scheme,
    engine::{
        FoundKey,
        core::{
            Core,
            detach_state::DetachState,
            doubt::Doubt,
            in_flight::Admission,
            lease::{Detach, Executed, Lease},
            plan::Plan,
            room::CallerHash,
            services::Services,
            slot::Slot,
        },
        reply::{Answer, conflict, refuse, reply},
        run::{Answered, Run},
    },
    fingerprint::{Difference, Fingerprint},
    header_sketch::HeaderSketch,
    key::IdempotencyKey,
    observe,
    policy::{OnCrash, Settings},
    problem::{Problem, ProblemCode},
    route::{Routing, Target},
    scope::StoreKey,
    store::{Claim, Token, TraceId},
};

/// Parsed once: a name that is looked up as text is parsed each time.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request between its arrival and its answer.
pub(crate) struct Exchange {
    pub(crate) core: Arc<Core>,
    pub(crate) plan: Arc<Plan>,
    /// Where the key is; taken when it is read.
    pub(crate) found: FoundKey,
    /// The largest body of the request, in bytes.
    pub(crate) max_body: usize,
    pub(super) routing: &'static Routing,
    /// The URI that the client sent, where the application may change the head.
    pub(super) uri: Option<Uri>,
    /// Which headers the request may have; known once its head is read.
    pub(super) sketch: HeaderSketch,
    /// Whether a caller step let the request in.
    pub(super) has_caller: bool,
    /// Shared with the future that the server polls, from the first step on that may wait.
    pub(super) detach: Option<Arc<DetachState>>,
    /// The caller, as far as the engine knows one.
    pub(super) caller: Option<CallerHash>,
    /// Held from before the claim until the outcome, but not while waiting.
    pub(super) admission: Option<Admission>,
    /// The bytes of the request's body, which it keeps while it waits.
    pub(super) waiting_bytes: usize,
    /// When waiting ends; set when it begins.
    pub(super) deadline: Option<Instant>,
}

/// What was read of a request, and what identifies it.
pub(super) struct Identified {
    pub(super) key: IdempotencyKey,
    pub(super) store_key: StoreKey,
    pub(super) fingerprint: Fingerprint,
    /// Where its record may be, too, while the secret is rotated.
    pub(super) elsewhere: Option<Box<Elsewhere>>,
    pub(super) body: Bytes,
}

/// A request that was read and identified.
pub(super) struct KeyedRequest {
    pub(super) identified: Identified,
    pub(super) head: Parts,
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
    pub(super) run: Run,
    pub(super) request: Request<Bytes>,
}

/// Another execution of this process has the key.
pub(super) struct Beside {
    pub(super) exchange: Box<Exchange>,
    /// After which a retry makes sense.
    pub(super) remaining: Duration,
}

impl Beside {
    pub(super) fn conflict<B>(self) -> Answered<B> {
        self.exchange.conflict(self.remaining)
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
    pub(crate) fn new(
        (core, plan): (Arc<Core>, Arc<Plan>),
        found: FoundKey,
        max_body: usize,
        routing: &'static Routing,
    ) -> Self {
        Self {
            core,
            plan,
            found,
            max_body,
            routing,
            uri: None,
            sketch: HeaderSketch::default(),
            has_caller: false,
            detach: None,
            caller: None,
            admission: None,
            waiting_bytes: 0,
            deadline: None,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.plan.settings
    }

    /// What is shared with the future that the server polls.
    pub(super) fn detach(&mut self) -> &Arc<DetachState> {
        let caller = self.caller;
        self.detach
            .get_or_insert_with(|| Arc::new(DetachState::new(caller)))
    }

    /// The request has been identified as this caller's.
    pub(super) fn set_caller(&mut self, caller: CallerHash) {
        self.caller = Some(caller);
        if let Some(detach) = &self.detach {
            detach.set_caller(caller);
        }
    }

    /// From here on the request must be served to its end, with or without its client.
    pub(super) fn must_finish(&mut self) {
        self.detach().must_finish();
    }

    /// From here on it may be dropped again.
    pub(super) fn may_drop(&self) {
        if let Some(detach) = &self.detach {
            detach.may_drop();
        }
    }

    /// Whether the client has gone.
    pub(super) fn client_left(&self) -> bool {
        self.detach
            .as_ref()
            .is_some_and(|detach| detach.client_left())
    }

    /// The request as it was sent, for an execution that is to be told from others.
    fn target(&self, head: &Parts) -> Target {
        let uri = match &self.uri {
            Some(uri) => uri.clone(),
            None => self.routing.uri_as_sent(head).into_owned(),
        };
        let template = self.plan.template().cloned();
        Target::new(head.method.clone(), uri, template, self.has_caller)
    }

    /// A claim with a new token, and no doubt about it yet.
    pub(super) fn claiming(&self, identified: &mut Identified, head: &Parts) -> Claiming {
        let settings = self.settings();
        let headers = self.sketch.beside(&head.headers);
        let trace = headers.lines(&TRACEPARENT).next();
        let claim = Claim::new(
            identified.store_key,
            identified.fingerprint,
            Token::random(),
            settings.lease,
            settings.ttl,
        )
        .trace_id(trace.and_then(|value| TraceId::from_traceparent(value.as_bytes())))
        .endpoint(self.plan.endpoint_label)
        .mode(settings.mode);
        Claiming {
            doubt: self.no_doubt(&claim),
            claim,
            elsewhere: identified.elsewhere.take(),
        }
    }

    /// No doubt yet about a claim with a new token.
    pub(super) fn no_doubt(&self, claim: &Claim) -> Doubt {
        let takes_over = !matches!(self.settings().on_crash, OnCrash::Refuse);
        Doubt::new(&self.core, claim, takes_over)
    }

    /// What an execution under this claim uses of the engine: with the digester that named its record.
    fn services(&self, claiming: &Claiming) -> &Arc<Services> {
        let other = self.core.other_services.as_ref();
        let elsewhere = claiming.elsewhere.as_deref();
        let other = other.filter(|_| elsewhere.is_some_and(|elsewhere| elsewhere.is_own));
        other.unwrap_or(&self.core.services)
    }

    /// The lease of an execution of this request.
    pub(super) fn lease(
        &mut self,
        (attempt, sent): (u32, Instant),
        claiming: &Claiming,
        key: IdempotencyKey,
        head: &Parts,
    ) -> Lease {
        let detach = match self.detach.take() {
            Some(state) => Detach::Shared(state),
            None => Detach::Own(DetachState::new(self.caller)),
        };
        let executed = Executed {
            key,
            attempt,
            request: self.target(head),
            detach,
            transaction: self
                .plan
                .settings
                .in_transaction()
                .then(|| Slot::new(&self.core)),
        };
        let services = Arc::clone(self.services(claiming));
        let lifetime = self.settings().max_lifetime;
        Lease::new(&claiming.claim, executed, services, sent, lifetime)
    }

    /// The execution that owns the key under this claim, by an acquire that was sent at `sent`. `Err` if this process
    /// executes the key already, which the record does not show when it has expired meanwhile: the claim is given back.
    pub(super) fn run(
        mut self,
        (attempt, sent): (u32, Instant),
        claiming: Claiming,
        key: IdempotencyKey,
        head: &Parts,
    ) -> Result<Run, Beside> {
        observe::record_attempt(attempt);
        let lease = Arc::new(self.lease((attempt, sent), &claiming, key, head));
        let Claiming { claim, doubt, .. } = claiming;
        // The claim exists.
        lease.detach_state().must_finish();
        // Invariant: an exchange is admitted before its acquire is sent.
        let mut admission = self
            .admission
            .take()
            .expect("an acquire is sent only when admitted");
        if !admission.hold(Arc::clone(&lease)) {
            return Err(Beside {
                exchange: Box::new(self),
                remaining: claim.lease,
            });
        }
        let Self { core, plan, .. } = self;
        Ok(Run {
            core,
            plan,
            lease,
            doubt,
            admission,
            ttl: None,
        })
    }

    /// The same for a request that waited.
    pub(super) fn start(
        self,
        acquired: (u32, Instant),
        claiming: Claiming,
        request: KeyedRequest,
    ) -> Result<Started, Beside> {
        let KeyedRequest { identified, head } = request;
        let run = self.run(acquired, claiming, identified.key, &head)?;
        let request = Request::from_parts(head, identified.body);
        Ok(Started { run, request })
    }

    /// A reply that needs no execution by this request.
    pub(super) fn reply<B>(
        &self,
        answer: Answer,
        waited: bool,
        claim: &Claim,
        head: &Parts,
    ) -> Answered<B> {
        if matches!(answer, Answer::Mismatch(Difference::Caller))
            && let Some(scheme) = signing_scheme(&head.headers)
        {
            self.core.warnings.signed_anew(scheme);
            return self.refuse(&Problem::signed_anew(scheme));
        }
        reply(&self.core, answer, waited, &claim.binding())
    }

    pub(super) fn refuse<B>(&self, problem: &Problem) -> Answered<B> {
        refuse(&self.core, problem)
    }

    pub(super) fn refuse_as<B>(&self, code: ProblemCode) -> Answered<B> {
        self.refuse(&code.into())
    }

    pub(super) fn conflict<B>(&self, remaining: Duration) -> Answered<B> {
        self.refuse(&conflict(remaining))
    }
}
