//! One execution: the handler under its lease, and its outcome.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | what an execution holds; its lease is in `core/lease`, the heartbeat in `core/keeper` |
//! | `cacheable` | whether a response is stored or releases the key |
//! | `length` | what a response says about its length, and whether that is true |
//! | `commit` | the last write: complete, release, abandon, with its retries |
//! | `recorder` | the same for a response of unknown length |

use std::{future::Future, mem};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::time::timeout_at;

use super::{
    body::{
        ResponseBody,
        collect::{CollectError, Collected, collect},
        recording::Recording,
    },
    core::keeper::keep,
    handler::{BoxError, Handler, HandlerResult, NotReady, ready},
    reply::{first_hand, problem, refuse},
};
use crate::{
    catch_unwind::{Panicked, catch_unwind, catching, catching_unpin, drop_catching},
    execution::{Crash, Recovery},
    observe::{self, RequestResult, Stopwatch},
    policy::{OnCrash, RecoverFn},
    problem::{Problem, ProblemCode},
    store::Outcome,
};

mod cacheable;
mod commit;
mod length;
mod recorder;
mod state;

use cacheable::Decision;
pub use cacheable::Retention;
use length::Announced;
pub(super) use state::{FencedOut, Run, RunResult};

impl Run {
    /// Runs the handler and answers with its outcome.
    ///
    /// The handler is called at once, so that the future that this returns does not carry the request along. The lease is
    /// kept from before the call: the handler may block its thread from its first instruction on.
    pub(crate) fn handler<H: Handler>(
        self: Box<Self>,
        handler: H,
        mut request: Request<Bytes>,
        endpoint: &str,
    ) -> impl Future<Output = RunResult<H::Body>> + Send {
        request
            .extensions_mut()
            .insert(self.lease.execution().again());
        keep(&self.core, &self.lease);
        let since = Stopwatch::start();
        let called = catch_unwind(|| handler.call(request));
        self.finish(called, since, endpoint)
    }

    /// Lets the handler run to its end.
    async fn finish<F, B>(
        self: Box<Self>,
        called: Result<F, Panicked>,
        since: Stopwatch,
        endpoint: &str,
    ) -> RunResult<B>
    where
        F: Future<Output = HandlerResult<B>> + Send + Unpin,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let result = match called {
            Ok(handler) => catching_unpin(handler).await,
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
            Ok(HandlerResult::ExtractorPanicked) => {
                tracing::error!("an extractor panicked; nothing was executed");
                let own = Ok(refuse(&self.core, &Problem::panicked_before_the_handler()));
                self.release(own).await
            }
            Ok(HandlerResult::NotStarted) => self.not_started().await,
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

    /// Waits until the handler can be called, for as long as it may start. `Err` is the answer where it cannot: nothing was
    /// executed, and the handler was dropped before anything was written, because a service may hold a place for it.
    pub(crate) async fn until_ready<H: Handler>(
        self: Box<Self>,
        mut handler: H,
    ) -> Result<(Box<Self>, H), RunResult<H::Body>> {
        let mut waited = false;
        let ready = ready(&mut handler, || {
            if !mem::replace(&mut waited, true) {
                keep(&self.core, &self.lease);
            }
        });
        let ready = timeout_at(self.lease.end_of_first(), ready);
        let in_time = tokio::select! {
            biased;
            in_time = ready => in_time.ok(),
            () = self.core.in_flight.closed() => None,
        };
        if in_time == Some(Ok(())) && (!waited || self.may_start()) && self.begin() {
            return Ok((self, handler));
        }
        drop_catching(handler);
        match in_time {
            Some(Ok(())) | None => Err(Box::pin(self.decline()).await),
            Some(Err(NotReady::Failed)) => Err(Box::pin(self.not_started()).await),
            Some(Err(NotReady::Panicked)) => {
                tracing::error!("the readiness of a service panicked; nothing was executed");
                let own = Ok(refuse(&self.core, &Problem::panicked_before_the_handler()));
                Err(Box::pin(self.release(own)).await)
            }
        }
    }

    /// The service failed before any work. Its client gets the error, which the adapter has, instead of this answer.
    async fn not_started<B>(self: Box<Self>) -> RunResult<B> {
        tracing::debug!("the service failed before any work; nothing was executed");
        let (_, reply) = self.refuse(ProblemCode::Overloaded);
        self.release(Ok((RequestResult::Rejected, reply))).await
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
        self.lease.is_first_lease()
            && !self.lease.execution().lease_lost()
            && !self.core.in_flight.is_closed()
    }

    /// The handler may not start: gives back what may still be ours, so that a retry can start it.
    pub(crate) async fn decline<B>(self: Box<Self>) -> RunResult<B> {
        let own = Ok(self.refuse(ProblemCode::Overloaded));
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
        let crash = Crash::new(self.lease.execution().again(), request);
        keep(&self.core, &self.lease);
        let found = catching(async { handler.recover(recover, crash).await }).await;
        match found {
            // If the lease lapsed meanwhile, another retry may have asked and executed: then this answer is stale.
            Ok(Recovery::NotExecuted) if self.may_start() => Err(self),
            Ok(Recovery::NotExecuted) => Ok(self.decline().await),
            Ok(Recovery::Completed(response)) => {
                // It happened, so it is stored, whatever its status; only the ttl is the function's to choose.
                let decision =
                    cacheable::decide(&self.settings, response.status(), response.extensions());
                if let Decision::StoreFor(ttl) = decision {
                    self.keep_for(ttl);
                }
                let (mut head, body) = first_hand(&self.core, response).into_parts();
                // The bytes are what was found: a length that contradicts them is taken off.
                let found = Full::new(body.clone());
                let _exact = Announced::of(&mut head, &found, self.lease.execution().method());
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
        match cacheable::decide(&self.settings, response.status(), response.extensions()) {
            Decision::Store => {}
            Decision::StoreFor(ttl) => self.keep_for(ttl),
            Decision::Release => {
                let own = Ok((RequestResult::Executed, response.map(ResponseBody::live)));
                return self.release(own).await;
            }
        }
        let limit = self.settings.max_response;
        let (mut head, body) = response.into_parts();
        let Ok(announced) = Announced::of(&mut head, &body, self.lease.execution().method()) else {
            tracing::error!("the response body panicked when it was asked for its size");
            return self.body_lost().await;
        };
        match announced {
            Announced::Nonsense => {
                tracing::error!("the Content-Length of the response is not a length");
                self.body_lost().await
            }
            Announced::Nothing => {
                let recording = recorder::start(self, head.clone(), body);
                let reply = Response::from_parts(head, ResponseBody::recording(recording));
                Ok((RequestResult::Executed, reply))
            }
            Announced::Exact(size) | Announced::Claimed(size) if size > limit as u64 => {
                let reply = Response::from_parts(head, ResponseBody::live(body));
                self.keep(&Outcome::Tombstone, reply).await
            }
            Announced::Exact(_) | Announced::Claimed(_) => {
                let Ok(Some(collected)) = catching(whole(body, limit)).await else {
                    return self.body_lost().await;
                };
                let body = collected.bytes;
                if !announced.is_kept_by(body.len()) {
                    tracing::error!(
                        ?announced,
                        bytes = body.len(),
                        "the response body is not as long as its Content-Length"
                    );
                    return self.body_lost().await;
                }
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

    /// The handler ran, and the body of its response broke off or panicked: executed, without a response.
    async fn body_lost<B>(self: Box<Self>) -> RunResult<B> {
        let own = self.refuse(ProblemCode::ResponseNotStored);
        self.keep_as(&Outcome::Tombstone, own).await
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
        let reply = Response::from_parts(head, ResponseBody::full(body));
        let own = (RequestResult::Problem(ProblemCode::HandlerPanicked), reply);
        self.keep_as(&outcome, own).await
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
