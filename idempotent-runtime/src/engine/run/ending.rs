//! What follows from how a handler ended. Nothing here waits, and nothing is written.

use bytes::Bytes;
use http::{Response, response::Parts};
use http_body::Body;

use super::{
    cacheable::{self, Decision},
    length::Announced,
    state::{Answered, Run},
};
use crate::{
    catch_unwind::{Panicked, catch_unwind, drop_catching},
    engine::{
        Unstyled,
        body::{
            ResponseBody,
            collect::{Begun, Collected},
            recording::Recording,
        },
        handler::{BoxError, HandlerResult},
        reply::{Reply, first_hand, problem, refuse},
    },
    observe::{RequestResult, Stopwatch},
    policy::OnCrash,
    problem::{Problem, ProblemCode},
    response::{NotStorable, StoredResponse},
    store::{Outcome, StoreError, Write},
};

/// What is left to do when a handler has ended.
pub(crate) enum Ending<B> {
    /// The outcome is stored, then the client gets the answer.
    Keep(Kept<B>),
    /// Nothing was executed, or the response asks for the same request again: the key is released.
    Release(Answered<B>),
    /// What was executed is unknown: the lease ends, the claim stays.
    Abandon(Answered<B>),
    /// The rest of the body is read first, so that the whole response is the outcome.
    Collect {
        head: Parts,
        body: Begun<B>,
        announced: Announced,
    },
    /// The body is passed on while it is recorded.
    Record { head: Parts, body: B },
    /// The handler's transaction is committed with the outcome, or rolled back first.
    InTransaction {
        ended: Result<HandlerResult<B>, Panicked>,
        since: Stopwatch,
    },
}

/// An outcome, and the answer of the request that it is of.
pub(crate) struct Kept<B> {
    pub(super) outcome: Outcome,
    pub(super) own: Answered<B>,
    /// What the store has answered already to the completion.
    pub(super) written: Option<Result<Write, StoreError>>,
}

impl Run {
    /// What follows from the handler's end.
    pub(crate) fn ending<B>(
        &mut self,
        ended: Result<HandlerResult<B>, Panicked>,
        since: Stopwatch,
    ) -> Ending<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        if self.lease.transaction().is_some() {
            return Ending::InTransaction { ended, since };
        }
        self.ending_outside(ended, since)
    }

    /// The same where there is no transaction, or not any more.
    pub(super) fn ending_outside<B>(
        &mut self,
        ended: Result<HandlerResult<B>, Panicked>,
        since: Stopwatch,
    ) -> Ending<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        match ended {
            Ok(HandlerResult::Returned(response)) => {
                self.plan.metrics.executed(since);
                let response = first_hand(&self.core, response);
                self.returned(response)
            }
            Ok(HandlerResult::Rejected(response)) => {
                let response = first_hand(&self.core, response);
                Ending::Release((RequestResult::Rejected, response.map(ResponseBody::live)))
            }
            Ok(HandlerResult::ExtractorPanicked) => {
                tracing::error!("an extractor panicked; nothing was executed");
                Ending::Release(refuse(&self.core, &Problem::panicked_before_the_handler()))
            }
            Ok(HandlerResult::NotStarted) => Ending::Release(self.not_started()),
            Ok(HandlerResult::Failed) => {
                self.plan.metrics.executed(since);
                tracing::error!("the service failed without a response; the outcome is unknown");
                Ending::Abandon(self.refuse(ProblemCode::OutcomeUnknown))
            }
            Err(Panicked) => {
                self.plan.metrics.executed(since);
                self.panicked()
            }
        }
    }

    /// The service failed before any work. Its client gets the error, which the adapter has, instead of this answer.
    pub(super) fn not_started<B>(&self) -> Answered<B> {
        tracing::debug!("the service failed before any work; nothing was executed");
        let (_, reply) = self.refuse(ProblemCode::Overloaded);
        (RequestResult::Rejected, reply)
    }

    /// The handler returned a response.
    fn returned<B>(&mut self, response: Response<B>) -> Ending<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        match cacheable::decide(self.settings(), response.status(), response.extensions()) {
            Decision::Store => {}
            Decision::StoreFor(ttl) => self.keep_for(ttl),
            Decision::Release => {
                let response = response.map(ResponseBody::live);
                return Ending::Release((RequestResult::Executed, response));
            }
            Decision::Abandon => return Ending::Abandon(self.unknown(response)),
        }
        let limit = self.settings().max_response;
        let (mut head, body) = response.into_parts();
        let Ok(announced) = Announced::of(&mut head, &body, self.lease.method()) else {
            tracing::error!("the response body panicked when it was asked for its size");
            drop_catching(body);
            return Ending::Keep(self.body_lost());
        };
        match announced {
            Announced::Nonsense => {
                tracing::error!("the Content-Length of the response is not a length");
                drop_catching(body);
                Ending::Keep(self.body_lost())
            }
            Announced::Nothing => Ending::Record { head, body },
            Announced::Exact(size) | Announced::Claimed(size) if size > limit as u64 => {
                let reply = Response::from_parts(head, ResponseBody::live(body));
                Ending::Keep(Kept::executed(Outcome::Tombstone, reply))
            }
            Announced::Exact(_) | Announced::Claimed(_) => {
                match catch_unwind(|| Begun::read(body, limit)) {
                    Ok(Ok(bytes)) => Ending::Keep(self.whole(head, bytes, announced)),
                    Ok(Err(body)) => Ending::Collect {
                        head,
                        body,
                        announced,
                    },
                    Err(Panicked) => {
                        tracing::error!("the response body panicked");
                        Ending::Keep(self.body_lost())
                    }
                }
            }
        }
    }

    /// The answer of a handler that does not know what happened.
    pub(super) fn unknown<B>(&self, response: Response<B>) -> Answered<B> {
        match response.extensions().get() {
            // A fault of a step is a problem of this engine, made without its style.
            Some(Unstyled(code)) => {
                let answered = self.refuse(*code);
                drop_catching(response);
                answered
            }
            None => (RequestResult::Executed, response.map(ResponseBody::live)),
        }
    }

    /// The body of a response was collected.
    pub(super) fn collected<B>(
        &self,
        head: Parts,
        collected: Collected,
        announced: Announced,
    ) -> Kept<B> {
        let Collected { bytes, trailers } = collected;
        match trailers {
            Some(trailers) if announced.is_kept_by(bytes.len()) => {
                // A replay without the trailers would pretend to be complete.
                let body = ResponseBody::recording(Recording::of(bytes, *trailers));
                Kept::executed(Outcome::Tombstone, Response::from_parts(head, body))
            }
            _ => self.whole(head, bytes, announced),
        }
    }

    /// The body of a response is here, and nothing comes after it.
    fn whole<B>(&self, head: Parts, body: Bytes, announced: Announced) -> Kept<B> {
        if !announced.is_kept_by(body.len()) {
            tracing::error!(
                ?announced,
                bytes = body.len(),
                "the response body is not as long as its Content-Length"
            );
            return self.body_lost();
        }
        let outcome = self.outcome(&head, &body);
        Kept::executed(
            outcome,
            Response::from_parts(head, ResponseBody::full(body)),
        )
    }

    /// The handler ran, and the body of its response broke off or panicked: executed, without a response.
    pub(super) fn body_lost<B>(&self) -> Kept<B> {
        Kept::new(
            Outcome::Tombstone,
            self.refuse(ProblemCode::ResponseNotStored),
        )
    }

    /// The handler panicked: an outcome like any other, unless the route executes crashed requests again.
    fn panicked<B>(&self) -> Ending<B> {
        tracing::error!(attempt = self.lease.attempt(), "the handler panicked");
        if matches!(self.settings().on_crash, OnCrash::Retry) && !self.settings().in_transaction() {
            return Ending::Abandon(refuse(&self.core, &Problem::panicked_and_retried()));
        }
        let problem = if self.settings().in_transaction() {
            Problem::panicked_and_rolled_back()
        } else {
            ProblemCode::HandlerPanicked.into()
        };
        Ending::Keep(self.stored_problem(&problem))
    }

    /// A problem that is the outcome.
    pub(super) fn stored_problem<B>(&self, failure: &Problem) -> Kept<B> {
        let (head, body) = problem(&self.core, failure).into_parts();
        let outcome = self.outcome(&head, &body);
        let reply = Response::from_parts(head, ResponseBody::full(body));
        Kept::new(outcome, (RequestResult::Problem(failure.code()), reply))
    }

    /// What is stored for this response: the response itself, or a tombstone where it exceeds the limits.
    pub(super) fn outcome(&self, head: &Parts, body: &[u8]) -> Outcome {
        match self.encoded(head, body) {
            Ok(response) => Outcome::Response(response),
            Err(reason) => {
                tracing::warn!(
                    reason = &reason as &dyn std::error::Error,
                    "the response is not stored: retries get `response_not_stored`"
                );
                Outcome::Tombstone
            }
        }
    }

    fn encoded(&self, head: &Parts, body: &[u8]) -> Result<StoredResponse, NotStorable> {
        let limits = self.core.response_limits(self.settings());
        let chosen = self.settings().stored_headers.as_ref();
        let method = self.lease.method();
        let response = StoredResponse::encode(head, body, &limits, chosen, Some(method))?;
        Ok(self.core.sealer.seal(response, &self.lease.binding()))
    }
}

impl<B> Kept<B> {
    pub(super) fn new(outcome: Outcome, own: Answered<B>) -> Self {
        Self {
            outcome,
            own,
            written: None,
        }
    }

    /// The handler's own response.
    pub(super) fn executed(outcome: Outcome, reply: Reply<B>) -> Self {
        Self::new(outcome, (RequestResult::Executed, reply))
    }
}
