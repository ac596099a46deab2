//! One execution: the handler under its lease, and its outcome.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | what an execution holds; its lease is in `core/lease`, the heartbeat in `core/keeper` |
//! | `running` | a handler at work |
//! | `ending` | what follows from how a handler ended |
//! | `cacheable` | whether a response is stored or releases the key |
//! | `length` | what a response says about its length, and whether that is true |
//! | `commit` | the last write: complete, release, abandon, with its retries |
//! | `recorder` | the same for a response of unknown length |
//! | `in_transaction` | the same where the outcome is committed with the handler's transaction |

use std::{mem, task::Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::time::timeout_at;

use super::{
    body::{
        ResponseBody,
        collect::{CollectError, Collected, collect},
    },
    core::keeper::keep,
    handler::{BoxError, Handler, HandlerResult, NotReady, ready},
    reply::{first_hand, refuse},
};
use crate::{
    catch_unwind::{Panicked, catching, drop_catching},
    execution::{Crash, Execution, Recovery},
    observe::{RequestResult, Stopwatch},
    policy::RecoverFn,
    problem::{Problem, ProblemCode},
    store::Write,
};

mod cacheable;
mod commit;
mod ending;
mod in_transaction;
mod length;
mod recorder;
mod running;
mod state;

use cacheable::Decision;
pub use cacheable::Retention;
use ending::{Ending, Kept};
use length::Announced;
pub(super) use running::Running;
pub(super) use state::{After, Answered, FencedOut, Run, RunResult};

/// How far an execution has ended.
pub(crate) enum Ended<B> {
    Answered(Answered<B>),
    /// This is left to do.
    Waits(Ending<B>),
}

impl Run {
    /// Ends the execution where the store can answer at once.
    pub(crate) fn end_now<B>(
        &mut self,
        ended: Result<HandlerResult<B>, Panicked>,
        since: Stopwatch,
    ) -> Ended<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let mut kept = match self.ending(ended, since) {
            Ending::Keep(kept) => kept,
            ending => return Ended::Waits(ending),
        };
        kept.written = self.complete_now(&kept.outcome);
        if !matches!(kept.written, Some(Ok(Write::Applied))) {
            return Ended::Waits(Ending::Keep(kept));
        }
        self.completed(&kept.outcome);
        Ended::Answered(kept.own)
    }

    /// Ends the execution: its outcome is stored, or its key is released or abandoned.
    pub(crate) async fn end<B>(self: Box<Self>, ending: Ending<B>) -> RunResult<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        match ending {
            Ending::Keep(kept) => self.keep(kept).await,
            Ending::Release(own) => self.release(own).await,
            Ending::Abandon(own) => self.abandon(own).await,
            Ending::InTransaction { ended, since } => {
                Box::pin(self.end_in_transaction(ended, since)).await
            }
            Ending::Collect {
                head,
                body,
                announced,
            } => {
                let limit = self.settings().max_response;
                let kept = match catching(whole(body, limit)).await {
                    Ok(Some(collected)) => self.collected(head, collected, announced),
                    Ok(None) => self.body_lost(),
                    Err(Panicked) => {
                        tracing::error!("the response body panicked");
                        self.body_lost()
                    }
                };
                self.keep(kept).await
            }
            Ending::Record { head, body } => {
                let recording = recorder::start(self, head.clone(), body);
                let reply = Response::from_parts(head, ResponseBody::recording(recording));
                Ok((RequestResult::Executed, reply))
            }
        }
    }

    /// Waits until the handler can be called, for as long as it may start. `first` is what it said when it was asked
    /// before, or pending if it was not. `Err` is the answer where it cannot be called: nothing was executed, and the handler was dropped before
    /// anything was written, because a service may hold a place for it.
    pub(crate) async fn until_ready<H: Handler>(
        self: Box<Self>,
        mut handler: H,
        first: Poll<Result<(), NotReady>>,
    ) -> Result<(Box<Self>, H), RunResult<H::Body>> {
        let mut waited = false;
        let in_time = match first {
            Poll::Ready(ready) => Some(ready),
            Poll::Pending => {
                let ready = ready(&mut handler, || {
                    if !mem::replace(&mut waited, true) {
                        keep(&self.core, &self.lease);
                    }
                });
                let ready = timeout_at(self.lease.end_of_first(), ready);
                tokio::select! {
                    biased;
                    in_time = ready => in_time.ok(),
                    () = self.core.in_flight.closed() => None,
                }
            }
        };
        if in_time == Some(Ok(())) && self.may_start() && self.begin() {
            return Ok((self, handler));
        }
        drop_catching(handler);
        let own = match in_time {
            Some(Ok(())) | None => return Err(Box::pin(self.decline()).await),
            Some(Err(NotReady::Failed)) => self.not_started(),
            Some(Err(NotReady::Panicked)) => {
                tracing::error!("the readiness of a service panicked; nothing was executed");
                refuse(&self.core, &Problem::panicked_before_the_handler())
            }
        };
        Err(Box::pin(self.release(own)).await)
    }

    /// Begins the execution, unless a shutdown has decided meanwhile that it does not begin. A shutdown closes the engine
    /// first and looks then what has begun, and this the other way round, so that one of the two sees the other.
    pub(crate) fn begin(&self) -> bool {
        self.lease.begin();
        !self.core.in_flight.is_closed()
    }

    /// Whether the handler may start: less than one lease has passed since the acknowledged acquire was sent. After that
    /// the key may belong to another execution, whatever the store answers now. A renewal prolongs nothing here: a token
    /// may hold two leases, one after the other, if a copy of its acquire arrives late, and a renewal does not say which of
    /// them it renewed. An engine that has shut down meanwhile starts nothing.
    pub(crate) fn may_start(&self) -> bool {
        self.lease.is_first_lease() && !self.core.in_flight.is_closed()
    }

    /// The handler may not start: gives back what may still be ours, so that a retry can start it.
    pub(crate) async fn decline<B>(self: Box<Self>) -> RunResult<B> {
        let own = self.refuse(ProblemCode::Overloaded);
        self.release(own).await
    }

    /// Asks the recovery function what became of the crashed execution. `Err` gives the run back: the handler is to be
    /// executed.
    pub(crate) async fn recover<H: Handler>(
        mut self: Box<Self>,
        recover: RecoverFn,
        handler: &mut H,
        request: Request<Bytes>,
    ) -> Result<RunResult<H::Body>, Box<Self>> {
        let crash = Crash::new(Execution::new(self.lease.clone()), request);
        keep(&self.core, &self.lease);
        let found = catching(async { handler.recover(recover, crash).await }).await;
        match found {
            // If the lease lapsed meanwhile, another retry may have asked and executed: then this answer is stale.
            Ok(Recovery::NotExecuted) if self.may_start() => Err(self),
            Ok(Recovery::NotExecuted) => Ok(self.decline().await),
            Ok(Recovery::Completed(response)) => {
                // It happened, so it is stored, whatever its status; only the ttl is the function's to choose.
                let decision =
                    cacheable::decide(self.settings(), response.status(), response.extensions());
                if let Decision::StoreFor(ttl) = decision {
                    self.keep_for(ttl);
                }
                let (mut head, body) = first_hand(&self.core, response).into_parts();
                // The bytes are what was found: a length that contradicts them is taken off.
                let found = Full::new(body.clone());
                let _exact = Announced::of(&mut head, &found, self.lease.method());
                let outcome = self.outcome(&head, &body);
                let reply = Response::from_parts(head, ResponseBody::full(body));
                let own = (RequestResult::Executed, reply);
                Ok(self.keep(Kept::new(outcome, own)).await)
            }
            Ok(Recovery::StillUnknown) => {
                let own = self.refuse(ProblemCode::OutcomeUnknown);
                Ok(self.abandon(own).await)
            }
            Err(Panicked) => {
                tracing::error!("the recovery function panicked; the outcome stays unknown");
                let own = self.refuse(ProblemCode::OutcomeUnknown);
                Ok(self.abandon(own).await)
            }
        }
    }
}

/// The whole body of a response, if it arrives whole and within the limit.
async fn whole<B>(body: B, limit: usize) -> Option<Collected>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    match collect(body, limit).await {
        Ok(collected) => Some(collected),
        Err(CollectError::TooLarge) => {
            tracing::error!("the response body is larger than its size hint said");
            None
        }
        Err(CollectError::TooLargeForAnother) => {
            tracing::error!("the response body is larger than a limit that was put around it");
            None
        }
        Err(CollectError::Broken(error)) => {
            let error = &*error as &dyn std::error::Error;
            tracing::error!(error, "the response body broke off");
            None
        }
    }
}
