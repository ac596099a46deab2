//! One execution: the handler under its lease, and its outcome.

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::{
    Idempotency, Reply,
    attend::Counted,
    body::ResponseBody,
    boundary::{BoxError, Ran, Work},
    caught::{Caught, Panicked, caught},
    execution::{Crash, Recovery},
    lease::Lease,
    retention::keeps,
    running::Admission,
    stream::Recording,
    whole::{Broken, Whole, whole},
};
use crate::{
    fingerprint::Fingerprint,
    observe::{self, Ended, Stopwatch},
    policy::{OnCrash, RecoverFn, Settings},
    problem::{Problem, ProblemCode},
    store::Outcome,
};

/// An execution that owns its key.
///
/// Boxed wherever it goes: it passes through several futures, and each would have room for a copy of it.
pub(crate) struct Run {
    pub(super) engine: Idempotency,
    pub(super) settings: Settings,
    pub(super) fingerprint: Fingerprint,
    pub(super) lease: Lease,
    /// Whether the lease was taken from an execution that vanished, as far as the claim allowed that.
    pub(super) took_over: bool,
    /// What a shutdown waits for; ends with the run.
    _admission: Admission,
}

/// How a run is answered: with a response of its own, or with that of the execution that fenced it out.
pub(crate) type Answered<B> = Result<(Ended, Reply<B>), FencedOut>;

/// Another execution owns the key: its outcome is the answer.
#[derive(Debug)]
pub(crate) struct FencedOut;

impl Run {
    pub(crate) fn new(
        engine: Idempotency,
        settings: Settings,
        fingerprint: Fingerprint,
        lease: Lease,
        took_over: bool,
        admission: Admission,
    ) -> Box<Self> {
        Box::new(Self {
            engine,
            settings,
            fingerprint,
            lease,
            took_over,
            _admission: admission,
        })
    }

    /// Runs the handler and answers with its outcome.
    ///
    /// It is started at once, so that the future returned does not carry the request along.
    pub(crate) fn handler<W: Work>(
        self: Box<Self>,
        work: W,
        mut request: Request<Bytes>,
        endpoint: &str,
    ) -> impl Future<Output = Answered<W::Body>> + Send {
        request
            .extensions_mut()
            .insert(self.lease.execution().clone());
        let since = Stopwatch::start();
        let started = caught(|| work.start(request));
        self.finish(started, since, endpoint)
    }

    /// Lets the handler run to its end.
    async fn finish<F, B>(
        mut self: Box<Self>,
        started: Result<F, Panicked>,
        since: Stopwatch,
        endpoint: &str,
    ) -> Answered<B>
    where
        F: Future<Output = Ran<B>> + Send + Unpin,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let ran = match started {
            Ok(handler) => self.lease.keep(Caught::new(handler)).await,
            Err(panicked) => Err(panicked),
        };
        match ran {
            Ok(Ran::Answered(response)) => {
                observe::executed(endpoint, since);
                let response = self.engine.first_hand(response);
                // Boxed for the reason that `Visit::serve` gives.
                Box::pin(self.answer(response)).await
            }
            Ok(Ran::Rejected(response)) => {
                let response = self.engine.first_hand(response);
                let own = Ok((Ended::Rejected, response.map(ResponseBody::live)));
                self.release(own).await
            }
            Ok(Ran::Failed) => {
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

    /// Whether the handler may start: a claim that took so long that its lease lapsed may be another's by now, and
    /// an engine that shut down meanwhile starts nothing any more.
    pub(crate) async fn may_start(&mut self) -> bool {
        self.lease.is_ours().await
    }

    /// It may not: gives back what may still be ours, for the retry to start.
    pub(crate) async fn decline<B>(self: Box<Self>) -> Answered<B> {
        let own = Ok(self.refuse(ProblemCode::Overloaded));
        self.release(own).await
    }

    /// Asks the recovery function what became of the execution before this one; `Err` gives the run back when
    /// the handler is to be executed.
    pub(crate) async fn recover<B>(
        mut self: Box<Self>,
        recover: RecoverFn,
        request: Request<Bytes>,
    ) -> Result<Answered<B>, Box<Self>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let crash = Crash::new(self.lease.execution().clone(), request);
        let found = self
            .lease
            .keep(Caught::new(async move { recover(crash).await }))
            .await;
        match found {
            // Another retry may have asked, and executed, since the lease lapsed: then this answer is stale.
            Ok(Recovery::NotExecuted) if self.may_start().await => Err(self),
            Ok(Recovery::NotExecuted) => Ok(self.decline().await),
            Ok(Recovery::Completed(response)) => {
                let (head, body) = response.into_parts();
                let outcome = self.outcome(&head, &body);
                Ok(self
                    .settle(
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

    /// The handler answered: keep the response, then send it.
    async fn answer<B>(mut self: Box<Self>, response: Response<B>) -> Answered<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        if !keeps(
            self.settings.cache,
            response.status(),
            response.extensions(),
        ) {
            let own = Ok((Ended::Executed, response.map(ResponseBody::live)));
            return self.release(own).await;
        }
        let limit = self.settings.max_response;
        let (head, body) = response.into_parts();
        match body.size_hint().exact() {
            None => {
                let recording = Recording::start(self, head.clone(), body);
                let reply = Response::from_parts(head, ResponseBody::recording(recording));
                Ok((Ended::Executed, reply))
            }
            Some(size) if size > limit as u64 => {
                let reply = Response::from_parts(head, ResponseBody::live(body));
                self.settle(&Outcome::Tombstone, reply).await
            }
            Some(_) => {
                let Ok(Some(whole)) = self.lease.keep(Caught::new(collect(body, limit))).await
                else {
                    let (_, reply) = self.engine.refused(&ProblemCode::ResponseNotStored.into());
                    return self.settle(&Outcome::Tombstone, reply).await;
                };
                let body = whole.bytes;
                if let Some(trailers) = whole.trailers {
                    // A replay without them would pretend to be whole.
                    let body = ResponseBody::recording(Recording::of(body, *trailers));
                    let reply = Response::from_parts(head, body);
                    return self.settle(&Outcome::Tombstone, reply).await;
                }
                let outcome = self.outcome(&head, &body);
                let reply = Response::from_parts(head, ResponseBody::full(body));
                self.settle(&outcome, reply).await
            }
        }
    }

    /// The handler panicked: an outcome like any other, unless the route executes crashed requests again.
    async fn panicked<B>(self: Box<Self>) -> Answered<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        tracing::error!(
            attempt = self.lease.execution().attempt(),
            "the handler panicked"
        );
        if matches!(self.settings.on_crash, OnCrash::Retry) {
            let own = Ok(self.engine.refused(&Problem::panicked_and_retried()));
            return self.abandon(own).await;
        }
        let problem = self.engine.problem(&ProblemCode::HandlerPanicked.into());
        let (head, body) = problem.into_parts();
        let outcome = self.outcome(&head, &body);
        self.settle(
            &outcome,
            Response::from_parts(head, ResponseBody::full(body)),
        )
        .await
    }

    pub(super) fn refuse<B>(&self, code: ProblemCode) -> (Ended, Reply<B>) {
        self.engine.refused(&code.into())
    }

    pub(crate) fn lease(&mut self) -> &mut Lease {
        &mut self.lease
    }

    pub(crate) fn max_response(&self) -> usize {
        self.settings.max_response
    }

    pub(crate) fn detached(&self) -> Counted {
        self.engine.detached().clone()
    }
}

/// The whole body, if it arrives whole and within the limit.
async fn collect<B>(body: B, limit: usize) -> Option<Whole>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    match whole(body, limit).await {
        Ok(whole) => Some(whole),
        Err(Broken::TooLarge) => {
            tracing::error!("the response body is larger than it said");
            None
        }
        Err(Broken::Error(error)) => {
            let error = &*error as &dyn std::error::Error;
            tracing::error!(error, "the response body broke off");
            None
        }
    }
}
