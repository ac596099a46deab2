//! One request's way through the engine.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Request, request::Parts};
use http_body::Body;
use http_body_util::LengthLimitError;
use tokio::time::Instant;

use super::{
    Idempotency, Reply,
    answer::conflict,
    attend::Attendance,
    boundary::{BoxError, Route, Work},
    decide::{Step, decide},
    execute::{FencedOut, Run},
    execution::Execution,
    follow::Followed,
    lease::Lease,
    running::Admission,
    whole::{Broken, whole},
};
use crate::{
    fingerprint::{Fingerprint, fingerprint},
    key::IdempotencyKey,
    observe::{self, Ended, Stopwatch},
    policy::{OnCrash, Settings},
    problem::{Problem, ProblemCode},
    scope::{Scope, StoreKey},
    store::{Acquisition, Claim, Token, TraceId},
};

/// Parsed once: a name that is looked up as text is parsed each time.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request between its arrival and its answer. Boxed, as an [`Arrival`] is, and for the same reason.
pub(crate) struct Visit {
    pub(crate) engine: Idempotency,
    pub(crate) settings: Settings,
    pub(crate) route: Route,
    pub(crate) attendance: Arc<Attendance>,
    /// Held from before the claim until the outcome, but not while waiting.
    pub(crate) admission: Option<Admission>,
}

/// A request that was read and identified. Boxed on its way: each step would have room for a copy of it.
pub(crate) struct Arrival {
    key: IdempotencyKey,
    store_key: StoreKey,
    fingerprint: Fingerprint,
    head: Parts,
    body: Bytes,
}

impl Arrival {
    pub(crate) fn into_parts(self: Box<Self>) -> (IdempotencyKey, Request<Bytes>) {
        let Self {
            key, head, body, ..
        } = *self;
        (key, Request::from_parts(head, body))
    }
}

impl Visit {
    /// The whole way. Records how it ended.
    pub(crate) async fn serve<B, W>(
        mut self: Box<Self>,
        request: Request<B>,
        work: W,
    ) -> Reply<W::Body>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
        W: Work,
    {
        // Each step in a box of its own, under 1 KB: larger ones miss the allocator's fast lists, and in a process
        // that has served many requests those cost more than all the rest of a replay.
        let (ended, reply) = match Box::pin(self.arrive(request)).await {
            Ok(arrival) => Box::pin(self.decide(arrival, work)).await,
            Err(refusal) => self.engine.refused(&refusal),
        };
        observe::ended(self.route.label(), ended);
        reply
    }

    /// Everything before the store: nothing is claimed yet.
    async fn arrive<B>(&mut self, request: Request<B>) -> Result<Box<Arrival>, Problem>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, body) = request.into_parts();
        let lines = self.settings.header.lines(&head.headers);
        let key = IdempotencyKey::parse(lines.iter(), self.settings.key_rules)
            .map_err(|error| Problem::key(error, self.settings.header.as_str()))?;
        if !self.engine.has_room() {
            return Err(ProblemCode::Overloaded.into());
        }
        let body = read(body, self.settings.max_body).await?;
        // Only now: a client that sends its body slowly is nothing a shutdown waits for.
        // Asked again: many may have left since the first time, while this body was on its way.
        if self.engine.has_room() {
            self.admission = self.engine.running().admit();
        }
        if self.admission.is_none() {
            return Err(ProblemCode::Overloaded.into());
        }
        let scope = self.scope(&head);
        let store_key =
            self.engine
                .digester()
                .store_key(&self.route.endpoint, scope.as_ref(), &key);
        observe::record_key(&store_key);
        let fingerprint = self.fingerprint(&head, scope.as_ref(), &body);
        Ok(Box::new(Arrival {
            key,
            store_key,
            fingerprint,
            head,
            body,
        }))
    }

    fn scope(&self, head: &Parts) -> Option<Scope> {
        match self.settings.scope {
            Some(scope) => scope(head),
            None => self.engine.scope(head),
        }
    }

    fn fingerprint(&self, head: &Parts, scope: Option<&Scope>, body: &[u8]) -> Fingerprint {
        let caller = match scope {
            Some(_) => None,
            // Nobody said who the caller is: whoever presents other credentials asks for something else.
            None => head.headers.get(http::header::AUTHORIZATION),
        };
        let caller = caller.map(|value| self.engine.digester().caller(value.as_bytes()));
        let uri = &self.route.uri;
        fingerprint(
            &self.settings.fingerprint,
            &head.method,
            uri.path(),
            uri.query(),
            &head.headers,
            caller.as_ref().map(<[u8; 32]>::as_slice),
            body,
        )
    }

    /// Claims the key and does what follows from the answer.
    async fn decide<W: Work>(&mut self, arrival: Box<Arrival>, work: W) -> (Ended, Reply<W::Body>) {
        let claim = self.claim(&arrival);
        // From here on the claim may exist: this future runs to its end.
        self.attendance.commit();
        let sent = Instant::now();
        let seen = match self.engine.ops().acquire(&claim, sent).await {
            Ok(seen) => seen,
            Err(unclaimed) => {
                return Box::pin(self.store_failed(&unclaimed, claim, arrival, work)).await;
            }
        };
        if !matches!(seen, Acquisition::Acquired { .. }) {
            self.attendance.uncommit();
        }
        match decide(seen, &self.settings) {
            // It left while the acquire was under way: nobody is there to wait.
            Step::Wait { .. } if self.attendance.client_left() => {
                self.engine.refused(&conflict(self.settings.lease))
            }
            Step::Wait { remaining } => Box::pin(self.wait(remaining, claim, arrival, work)).await,
            step => self.take(step, sent, claim, arrival, work, false).await,
        }
    }

    fn claim(&self, arrival: &Arrival) -> Claim {
        let trace = arrival.head.headers.get(&TRACEPARENT);
        Claim::new(
            arrival.store_key,
            arrival.fingerprint,
            Token::random(),
            self.settings.lease,
            self.settings.ttl,
        )
        .take_over(matches!(self.settings.on_crash, OnCrash::Retry))
        .trace_id(trace.and_then(|value| TraceId::from_traceparent(value.as_bytes())))
    }

    /// Waits for another execution and does what follows from its end.
    async fn wait<W: Work>(
        &mut self,
        remaining: Duration,
        claim: Claim,
        arrival: Box<Arrival>,
        work: W,
    ) -> (Ended, Reply<W::Body>) {
        let since = Stopwatch::start();
        let followed = self.follow(&claim, remaining).await;
        observe::waited(self.route.label(), since);
        match followed {
            Followed::Step(step, sent) => self.take(step, sent, claim, arrival, work, true).await,
            Followed::Full | Followed::ShutDown => {
                self.engine.refused(&ProblemCode::Overloaded.into())
            }
            Followed::StoreFailed(unclaimed) => self.unclaimed(&unclaimed, &claim),
            // The answer goes nowhere.
            Followed::ClientLeft => self.engine.refused(&conflict(self.settings.lease)),
        }
    }

    /// Takes a step that is not waiting.
    async fn take<W: Work>(
        &mut self,
        step: Step,
        sent: Instant,
        claim: Claim,
        arrival: Box<Arrival>,
        work: W,
        waited: bool,
    ) -> (Ended, Reply<W::Body>) {
        match step {
            Step::Execute { attempt } => {
                let (key, request) = arrival.into_parts();
                let mut run = self.run(attempt, sent, &claim, key);
                if !run.may_start().await {
                    return Box::pin(self.declined(run, claim)).await;
                }
                // A replay does not pay for the room that an execution takes.
                Box::pin(self.execute(run, claim, request, work)).await
            }
            Step::Recover => Box::pin(self.recover(claim, arrival, work)).await,
            Step::Answer(answer) => self.engine.answered(answer, waited, &claim.binding()),
            Step::Wait { remaining } => self.engine.refused(&conflict(remaining)),
        }
    }

    /// The lease is ours.
    pub(crate) fn run(
        &mut self,
        attempt: u32,
        sent: Instant,
        claim: &Claim,
        key: IdempotencyKey,
    ) -> Box<Run> {
        observe::record_attempt(attempt);
        // Invariant: whoever acquired was admitted before the acquire was sent.
        let mut admission = self
            .admission
            .take()
            .expect("an acquire is sent only when admitted");
        admission.owns(claim.key, claim.token);
        let engine = self.engine.clone();
        let execution = Execution::new(engine.clone(), key, claim.key, attempt, sent);
        let lease = Lease::new(
            engine.clone(),
            claim.held(),
            execution,
            sent,
            self.settings.max_lifetime,
        );
        let took_over = claim.take_over && attempt > 1;
        Run::new(
            engine,
            self.settings.clone(),
            claim.fingerprint,
            lease,
            took_over,
            admission,
        )
    }

    /// Executes the handler. It is started at once, so that the future returned does not carry the request along.
    pub(crate) fn execute<W: Work>(
        &self,
        run: Box<Run>,
        claim: Claim,
        request: Request<Bytes>,
        work: W,
    ) -> impl Future<Output = (Ended, Reply<W::Body>)> + Send {
        let answered = run.handler(work, request, self.route.label());
        async move {
            match answered.await {
                Ok(answered) => answered,
                Err(FencedOut) => Box::pin(self.winner(claim)).await,
            }
        }
    }
}

/// Reads the body, whatever its length was said to be.
async fn read<B>(body: B, limit: usize) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::request_too_large(limit));
    }
    match whole(body, limit).await {
        Ok(whole) => Ok(whole.bytes),
        Err(Broken::TooLarge) => Err(Problem::request_too_large(limit)),
        Err(Broken::Error(error)) if is_too_large(&*error) => {
            Err(Problem::request_too_large(limit))
        }
        Err(Broken::Error(error)) => {
            tracing::debug!(
                error = &*error as &dyn std::error::Error,
                "the request body broke off"
            );
            Err(ProblemCode::UnreadableBody.into())
        }
    }
}

/// Whether the limit of a layer before us was hit.
fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(<dyn std::error::Error>::is::<LengthLimitError>)
}
