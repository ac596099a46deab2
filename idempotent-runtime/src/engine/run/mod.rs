//! One execution: the handler under its lease, and its outcome.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | what an execution holds |
//! | `lease` | the lease and its heartbeat |
//! | `cacheable` | whether a response is stored or releases the key |
//! | `commit` | the last write: complete, release, abandon, with its retries |
//! | `recorder` | the same for a response of unknown length |
//! | `catch_unwind` | panics of the handler |

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::{
    body::{
        ResponseBody,
        collect::{CollectError, Collected, collect},
        recording::Recording,
    },
    handler::{BoxError, Handler, HandlerResult},
    reply::{first_hand, problem, refuse},
};
use crate::{
    execution::{Crash, Recovery},
    observe::{self, RequestResult, Stopwatch},
    policy::{OnCrash, RecoverFn},
    problem::{Problem, ProblemCode},
    store::Outcome,
};

mod cacheable;
mod catch_unwind;
mod commit;
pub(super) mod lease;
mod recorder;
mod state;

pub use cacheable::Retention;
use cacheable::is_cacheable;
use catch_unwind::{Panicked, catch_unwind, catching};
pub(super) use state::{FencedOut, Run, RunResult};

impl Run {
    /// Runs the handler and answers with its outcome.
    ///
    /// The handler is called at once, so that the future that this returns does not carry the request along.
    pub(crate) fn handler<H: Handler>(
        self: Box<Self>,
        handler: H,
        mut request: Request<Bytes>,
        endpoint: &str,
    ) -> impl Future<Output = RunResult<H::Body>> + Send {
        request
            .extensions_mut()
            .insert(self.lease.execution().clone());
        let since = Stopwatch::start();
        let called = catch_unwind(|| handler.call(request));
        self.finish(called, since, endpoint)
    }

    /// Lets the handler run to its end.
    async fn finish<F, B>(
        mut self: Box<Self>,
        called: Result<F, Panicked>,
        since: Stopwatch,
        endpoint: &str,
    ) -> RunResult<B>
    where
        F: Future<Output = HandlerResult<B>> + Send + Unpin,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let result = match called {
            Ok(handler) => self.lease.renew_while(catching(handler)).await,
            Err(panicked) => Err(panicked),
        };
        match result {
            Ok(HandlerResult::Returned(response)) => {
                observe::executed(endpoint, since);
                let response = first_hand(&self.core, response);
                // Boxed for the reason that `Exchange::serve` gives.
                Box::pin(self.answer(response)).await
            }
            Ok(HandlerResult::Rejected(response)) => {
                let response = first_hand(&self.core, response);
                let own = Ok((RequestResult::Rejected, response.map(ResponseBody::live)));
                self.release(own).await
            }
            Ok(HandlerResult::Failed) => {
                observe::executed(endpoint, since);
                tracing::error!("the service failed without a response; the outcome is unknown");
                let own = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                self.abandon(own).await
            }
            Err(Panicked) => {
                observe::executed(endpoint, since);
                Box::pin(self.panicked()).await
            }
        }
    }

    /// Whether the handler may start. A claim that took so long that its lease lapsed may belong to another execution by
    /// now, and an engine that has shut down meanwhile starts nothing.
    pub(crate) async fn may_start(&mut self) -> bool {
        self.lease.is_ours().await
    }

    /// The handler may not start: gives back what may still be ours, so that a retry can start it.
    pub(crate) async fn decline<B>(self: Box<Self>) -> RunResult<B> {
        let own = Ok(self.refuse(ProblemCode::Overloaded));
        self.release(own).await
    }

    /// Asks the recovery function what became of the crashed execution. `Err` gives the run back: the handler is to be
    /// executed.
    pub(crate) async fn recover<B>(
        mut self: Box<Self>,
        recover: RecoverFn,
        request: Request<Bytes>,
    ) -> Result<RunResult<B>, Box<Self>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let crash = Crash::new(self.lease.execution().clone(), request);
        let found = self
            .lease
            .renew_while(catching(async move { recover(crash).await }))
            .await;
        match found {
            // If the lease lapsed meanwhile, another retry may have asked and executed: then this answer is stale.
            Ok(Recovery::NotExecuted) if self.may_start().await => Err(self),
            Ok(Recovery::NotExecuted) => Ok(self.decline().await),
            Ok(Recovery::Completed(response)) => {
                let (head, body) = response.into_parts();
                let outcome = self.outcome(&head, &body);
                Ok(self
                    .keep(
                        &outcome,
                        Response::from_parts(head, ResponseBody::full(body)),
                    )
                    .await)
            }
            Ok(Recovery::StillUnknown) => {
                let own = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                Ok(self.abandon(own).await)
            }
            Err(Panicked) => {
                tracing::error!("the recovery function panicked; the outcome stays unknown");
                let own = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                Ok(self.abandon(own).await)
            }
        }
    }

    /// The handler returned: stores the response, then answers with it.
    async fn answer<B>(mut self: Box<Self>, response: Response<B>) -> RunResult<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        if !is_cacheable(
            self.settings.cache,
            response.status(),
            response.extensions(),
        ) {
            let own = Ok((RequestResult::Executed, response.map(ResponseBody::live)));
            return self.release(own).await;
        }
        let limit = self.settings.max_response;
        let (head, body) = response.into_parts();
        match body.size_hint().exact() {
            None => {
                let recording = recorder::start(self, head.clone(), body);
                let reply = Response::from_parts(head, ResponseBody::recording(recording));
                Ok((RequestResult::Executed, reply))
            }
            Some(size) if size > limit as u64 => {
                let reply = Response::from_parts(head, ResponseBody::live(body));
                self.keep(&Outcome::Tombstone, reply).await
            }
            Some(_) => {
                let Ok(Some(collected)) =
                    self.lease.renew_while(catching(whole(body, limit))).await
                else {
                    let (_, reply) = refuse(&self.core, &ProblemCode::ResponseNotStored.into());
                    return self.keep(&Outcome::Tombstone, reply).await;
                };
                let body = collected.bytes;
                if let Some(trailers) = collected.trailers {
                    // A replay without the trailers would pretend to be complete.
                    let body = ResponseBody::recording(Recording::of(body, *trailers));
                    let reply = Response::from_parts(head, body);
                    return self.keep(&Outcome::Tombstone, reply).await;
                }
                let outcome = self.outcome(&head, &body);
                let reply = Response::from_parts(head, ResponseBody::full(body));
                self.keep(&outcome, reply).await
            }
        }
    }

    /// The handler panicked: an outcome like any other, unless the route executes crashed requests again.
    async fn panicked<B>(self: Box<Self>) -> RunResult<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        tracing::error!(
            attempt = self.lease.execution().attempt(),
            "the handler panicked"
        );
        if matches!(self.settings.on_crash, OnCrash::Retry) {
            let own = Ok(refuse(&self.core, &Problem::panicked_and_retried()));
            return self.abandon(own).await;
        }
        let problem = problem(&self.core, &ProblemCode::HandlerPanicked.into());
        let (head, body) = problem.into_parts();
        let outcome = self.outcome(&head, &body);
        self.keep(
            &outcome,
            Response::from_parts(head, ResponseBody::full(body)),
        )
        .await
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
        Err(CollectError::Broken(error)) => {
            let error = &*error as &dyn std::error::Error;
            tracing::error!(error, "the response body broke off");
            None
        }
    }
}
