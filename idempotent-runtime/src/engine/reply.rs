//! What the engine answers: problems, replays, and the responses of handlers on their way out.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};

use super::{body::ResponseBody, core::Core};
use crate::{
    execution::Execution,
    fingerprint::Difference,
    header_sketch::SketchedHeaders,
    observe::RequestResult,
    problem::{Problem, ProblemCode},
    response::{Binding, StoredResponse},
    route::Routing,
    store::Outcome,
};

/// A response that went through the engine.
pub(crate) type Reply<B> = Response<ResponseBody<B>>;

/// Marks an answer that an engine gave instead of executing, to the request of an execution around it: for the engine of
/// that execution, nothing was executed either.
#[derive(Clone)]
pub(crate) struct Refused(Execution);

impl Refused {
    /// The mark for answers to this request, if an execution around it serves it and nobody between the two engines looked
    /// at the request. Who did may have had an effect.
    pub(crate) fn for_request<B>(request: &Request<B>, routing: &Routing) -> Option<Self> {
        // Not `Execution::from_extensions`: this look is not the handler's.
        let execution = request.extensions().get::<Execution>()?;
        let is_untouched = !execution.is_touched() && execution.serves(request, routing, None);
        is_untouched.then(|| Self(execution.again()))
    }

    /// Whether this answer has the mark for this execution.
    pub(crate) fn is_in<B>(response: &Response<B>, execution: &Execution) -> bool {
        let mark = response.extensions().get::<Self>();
        mark.is_some_and(|Self(refused)| refused.is(execution))
    }

    /// Marks this answer.
    pub(crate) fn mark<B>(self, response: &mut Response<B>) {
        response.extensions_mut().insert(self);
    }
}

/// Marks a problem for whose request nothing was executed, on its way through the engine.
#[derive(Clone, Copy)]
struct NothingExecuted;

/// An answer of the engine itself: it needs no execution by this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The stored response.
    Replay(StoredResponse),
    /// Executed, but the response was not stored.
    NotStored,
    /// The key belongs to another request.
    Mismatch(Difference),
    /// The first request is still being executed.
    Conflict { remaining: Duration },
    /// Whether the effect happened is unknown.
    Unknown,
}

/// Longest `Retry-After` of a conflict. What is left of the lease limits how long the execution may stay silent, not how
/// long it takes: a client that came back only then would usually have waited longer than necessary.
const CONFLICT_RETRY: Duration = Duration::from_secs(5);

/// A conflict with an execution whose lease has this much left.
pub(crate) fn conflict(remaining: Duration) -> Problem {
    let seconds = remaining.min(CONFLICT_RETRY).as_millis().div_ceil(1000);
    Problem::new(ProblemCode::Conflict).retry_after(u64::try_from(seconds).unwrap_or(1))
}

/// A problem as a response.
pub(crate) fn problem(core: &Core, problem: &Problem) -> Response<Bytes> {
    problem.response(&core.problem_style)
}

/// A problem as a reply, and how the request ended.
pub(crate) fn refuse<B>(core: &Core, refusal: &Problem) -> (RequestResult, Reply<B>) {
    let mut reply = problem(core, refusal).map(ResponseBody::full);
    if refusal.comes_before_the_handler() {
        reply.extensions_mut().insert(NothingExecuted);
    }
    (RequestResult::Problem(refusal.code()), reply)
}

/// The answer of a request that executed, whatever the answer says.
pub(crate) fn executed<B>(
    (result, mut reply): (RequestResult, Reply<B>),
) -> (RequestResult, Reply<B>) {
    reply.extensions_mut().remove::<NothingExecuted>();
    (result, reply)
}

/// Whether nothing was executed for the request that gets this reply.
pub(crate) fn nothing_executed<B>(result: RequestResult, reply: &Reply<B>) -> bool {
    result == RequestResult::Rejected || reply.extensions().get::<NothingExecuted>().is_some()
}

/// Says in the reply how the request ended, if the engine has a header for that. It never goes into a record.
pub(crate) fn name_outcome<B>(core: &Core, result: RequestResult, reply: &mut Response<B>) {
    if let Some(name) = &core.outcome_header {
        let outcome = HeaderValue::from_static(result.as_str());
        reply.headers_mut().insert(name.clone(), outcome);
    }
}

/// A handler's response. Only the engine marks replays and outcomes, whatever response of another service a handler
/// passes on.
pub(crate) fn first_hand<B>(core: &Core, mut response: Response<B>) -> Response<B> {
    // Hardly any has them, and a removal costs more than a look.
    let headers = SketchedHeaders::of(response.headers());
    let names = [Some(&core.replay_header), core.outcome_header.as_ref()];
    let found = names.map(|name| name.filter(|name| headers.may_have(name)));
    for name in found.into_iter().flatten() {
        response.headers_mut().remove(name);
    }
    response
}

/// The reply to a request that needs no execution.
pub(crate) fn reply<B>(
    core: &Core,
    answer: Answer,
    waited: bool,
    binding: &Binding,
) -> (RequestResult, Reply<B>) {
    match answer {
        Answer::Replay(response) => replay(core, &response, waited, binding),
        Answer::NotStored => refuse(core, &ProblemCode::ResponseNotStored.into()),
        Answer::Mismatch(Difference::Request) => refuse(core, &ProblemCode::Mismatch.into()),
        Answer::Mismatch(Difference::Caller) => refuse(core, &ProblemCode::CallerMismatch.into()),
        Answer::Conflict { remaining } => refuse(core, &conflict(remaining)),
        Answer::Unknown => refuse(core, &ProblemCode::OutcomeUnknown.into()),
    }
}

/// The stored response, byte for byte, plus the header that marks it as a replay.
fn replay<B>(
    core: &Core,
    stored: &StoredResponse,
    waited: bool,
    binding: &Binding,
) -> (RequestResult, Reply<B>) {
    let opened = core.sealer.open(stored, binding);
    let (status, headers, body) = match opened.and_then(|opened| opened.decode()) {
        Ok(parts) => parts,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "a stored response cannot be read; the handler is not executed again"
            );
            return refuse(core, &ProblemCode::RecordUnreadable.into());
        }
    };
    let mut reply = Response::new(ResponseBody::full(body));
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    let headers = reply.headers_mut();
    headers.insert(core.replay_header.clone(), HeaderValue::from_static("true"));
    core.problem_style.mark_replay(status, headers);
    let result = if waited {
        RequestResult::ReplayedAfterWait
    } else {
        RequestResult::Replayed
    };
    (result, reply)
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Response(response) => Self::Replay(response),
            Outcome::Tombstone => Self::NotStored,
        }
    }
}
