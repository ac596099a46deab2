//! The engine's own answers: replays and refusals.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};

use super::{Idempotency, Reply, body::ResponseBody, decide::Answer};
use crate::{
    observe::Ended,
    problem::{Problem, ProblemCode},
    response::{Binding, StoredResponse},
};

/// Longest `Retry-After` of a conflict. What is left of the lease bounds how long the execution may stay
/// silent, not how long it takes: a client that came back only then would mostly have waited for nothing.
const CONFLICT_RETRY: Duration = Duration::from_secs(5);

/// A conflict with an execution whose lease has this much left.
pub(crate) fn conflict(remaining: Duration) -> Problem {
    let seconds = remaining.min(CONFLICT_RETRY).as_millis().div_ceil(1000);
    Problem::new(ProblemCode::Conflict).retry_after(u64::try_from(seconds).unwrap_or(1))
}

impl Idempotency {
    /// A problem as a response.
    pub(crate) fn problem(&self, problem: &Problem) -> Response<Bytes> {
        problem.response(self.problem_style())
    }

    /// A problem as a reply, and how the request ended.
    pub(crate) fn refused<B>(&self, problem: &Problem) -> (Ended, Reply<B>) {
        (
            ended(problem.code()),
            self.problem(problem).map(ResponseBody::full),
        )
    }

    /// An answer of the handler's. Only the engine says what is a replay, whatever answer of another service the
    /// handler passes on.
    pub(crate) fn first_hand<B>(&self, mut response: Response<B>) -> Response<B> {
        response.headers_mut().remove(self.replay_header());
        response
    }

    /// An answer that needed no execution by this request.
    pub(crate) fn answered<B>(
        &self,
        answer: Answer,
        waited: bool,
        binding: &Binding,
    ) -> (Ended, Reply<B>) {
        match answer {
            Answer::Replay(response) => self.replay(&response, waited, binding),
            Answer::NotStored => self.refused(&ProblemCode::ResponseNotStored.into()),
            Answer::Mismatch => self.refused(&ProblemCode::Mismatch.into()),
            Answer::Conflict { remaining } => self.refused(&conflict(remaining)),
            Answer::Unknown => self.refused(&ProblemCode::OutcomeUnknown.into()),
        }
    }

    /// The stored response, byte for byte, plus the header that says so.
    fn replay<B>(
        &self,
        stored: &StoredResponse,
        waited: bool,
        binding: &Binding,
    ) -> (Ended, Reply<B>) {
        let (status, headers, body) = match self
            .sealer()
            .open(stored, binding)
            .and_then(|opened| opened.decode())
        {
            Ok(parts) => parts,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "a stored response cannot be read; the handler is not executed again"
                );
                return self.refused(&ProblemCode::RecordUnreadable.into());
            }
        };
        let mut reply = Response::new(ResponseBody::full(body));
        *reply.status_mut() = status;
        *reply.headers_mut() = headers;
        reply.headers_mut().insert(
            self.replay_header().clone(),
            HeaderValue::from_static("true"),
        );
        (
            if waited {
                Ended::ReplayedAfterWait
            } else {
                Ended::Replayed
            },
            reply,
        )
    }
}

/// What metrics call an answer of the engine's own.
fn ended(code: ProblemCode) -> Ended {
    match code {
        ProblemCode::MissingKey => Ended::MissingKey,
        ProblemCode::InvalidKey => Ended::InvalidKey,
        ProblemCode::RequestTooLarge => Ended::RequestTooLarge,
        ProblemCode::UnreadableBody => Ended::UnreadableBody,
        ProblemCode::Mismatch => Ended::Mismatch,
        ProblemCode::Conflict => Ended::Conflict,
        ProblemCode::OutcomeUnknown => Ended::OutcomeUnknown,
        ProblemCode::ResponseNotStored => Ended::ResponseNotStored,
        ProblemCode::StoreUnavailable => Ended::StoreUnavailable,
        ProblemCode::Overloaded => Ended::Overloaded,
        ProblemCode::RecordUnreadable => Ended::RecordUnreadable,
        ProblemCode::HandlerPanicked => Ended::Executed,
    }
}
