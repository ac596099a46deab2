//! One execution: the handler under its lease, and its outcome.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, response::Parts};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, sleep};

use super::{
    Idempotency, Reply,
    attend::Counted,
    body::ResponseBody,
    boundary::{BoxError, Ran, Work},
    caught::{Caught, Panicked},
    execution::{Crash, Recovery},
    lease::Lease,
    ops::jittered,
    retention::keeps,
    running::Admission,
    stream::Recording,
    wait::Verdict,
};
use crate::{
    fingerprint::Fingerprint,
    observe::{self, Ended},
    policy::{OnCrash, RecoverFn, Settings},
    problem::{Problem, ProblemCode},
    response::{Binding, StoredResponse},
    store::{Outcome, StoreError, Write},
};

/// An execution that owns its key.
pub(crate) struct Run {
    engine: Idempotency,
    settings: Settings,
    fingerprint: Fingerprint,
    lease: Lease,
    /// What a shutdown waits for; ends with the run.
    _admission: Admission,
}

/// How the last write of an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// The outcome is stored and acknowledged.
    Applied,
    /// Another execution owns the key: its outcome is the answer.
    Fenced,
    /// The record is gone, though this execution never gave it up.
    Missing,
    /// The store did not acknowledge. The write may or may not have been applied.
    Unacknowledged,
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
        admission: Admission,
    ) -> Self {
        Self {
            engine,
            settings,
            fingerprint,
            lease,
            _admission: admission,
        }
    }

    /// Runs the handler and answers with its outcome.
    pub(crate) async fn handler<W: Work>(
        mut self,
        work: W,
        mut request: Request<Bytes>,
        endpoint: &str,
    ) -> Answered<W::Body> {
        request
            .extensions_mut()
            .insert(self.lease.execution().clone());
        let started = Instant::now();
        let ran = self
            .lease
            .keep(Caught::new(async move { work.start(request).await }))
            .await;
        match ran {
            Ok(Ran::Answered(response)) => {
                observe::executed(endpoint, started.elapsed());
                self.answer(response).await
            }
            Ok(Ran::Rejected(response)) => {
                let own = Ok((Ended::Rejected, response.map(ResponseBody::live)));
                self.release(own).await
            }
            Ok(Ran::Failed) => {
                observe::executed(endpoint, started.elapsed());
                tracing::error!("the service failed without a response; the outcome is unknown");
                let own = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                self.give_up(LastWrite::Abandon, own).await
            }
            Err(Panicked) => {
                observe::executed(endpoint, started.elapsed());
                self.panicked().await
            }
        }
    }

    /// Asks the recovery function what became of the execution before this one; `Err` gives the run back when
    /// the handler is to be executed.
    pub(crate) async fn recover<B>(
        mut self,
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
            Ok(Recovery::NotExecuted) => Err(Box::new(self)),
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
                Ok(self.give_up(LastWrite::Abandon, own).await)
            }
            Err(Panicked) => {
                tracing::error!("the recovery function panicked; the outcome stays unknown");
                let own = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                Ok(self.give_up(LastWrite::Abandon, own).await)
            }
        }
    }

    /// The handler answered: keep the response, then send it.
    async fn answer<B>(mut self, response: Response<B>) -> Answered<B>
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
                let Ok(Some(body)) = self.lease.keep(Caught::new(collect(body, limit))).await
                else {
                    let (_, reply) = self.engine.refused(&ProblemCode::ResponseNotStored.into());
                    return self.settle(&Outcome::Tombstone, reply).await;
                };
                let outcome = self.outcome(&head, &body);
                let reply = Response::from_parts(head, ResponseBody::full(body));
                self.settle(&outcome, reply).await
            }
        }
    }

    /// The handler panicked: an outcome like any other, unless the route executes crashed requests again.
    async fn panicked<B>(self) -> Answered<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        tracing::error!(
            attempt = self.lease.execution().attempt(),
            "the handler panicked"
        );
        if matches!(self.settings.on_crash, OnCrash::Retry) {
            let own = Ok(self.engine.refused(&Problem::panicked_and_retried()));
            return self.give_up(LastWrite::Abandon, own).await;
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

    /// Commits the outcome and says what the client gets.
    async fn settle<B>(mut self, outcome: &Outcome, reply: Reply<B>) -> Answered<B> {
        match self.commit(outcome).await {
            Committed::Applied => Ok((Ended::Executed, reply)),
            Committed::Fenced => Err(FencedOut),
            Committed::Missing => Ok(self.refuse(ProblemCode::OutcomeUnknown)),
            Committed::Unacknowledged => {
                let answer = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                self.persist(outcome.clone());
                answer
            }
        }
    }

    /// What is stored for this response: the response itself, or a tombstone where it exceeds the limits.
    pub(crate) fn outcome(&self, head: &Parts, body: &[u8]) -> Outcome {
        let limits = self.engine.response_limits(&self.settings);
        match StoredResponse::encode(head, body, &limits) {
            Ok(response) => {
                let binding = Binding {
                    key: self.lease.held().key,
                    fingerprint: self.fingerprint,
                };
                Outcome::Response(self.engine.sealer().seal(response, &binding))
            }
            Err(reason) => {
                tracing::warn!(
                    reason = &reason as &dyn std::error::Error,
                    "the response is not kept: retries get `response_not_stored`"
                );
                Outcome::Tombstone
            }
        }
    }

    /// Stores the outcome, trying again within bounds, and tells those who wait.
    pub(crate) async fn commit(&mut self, outcome: &Outcome) -> Committed {
        let written = self.insist(LastWrite::Complete(outcome)).await;
        let key = self.lease.held().key;
        match written {
            Ok(Write::Applied) => {
                let fingerprint = self.fingerprint;
                self.engine
                    .wait_room()
                    .publish(&key, || Verdict::Completed {
                        fingerprint,
                        outcome: outcome.clone(),
                    });
                Committed::Applied
            }
            Ok(Write::Fenced) => {
                tracing::warn!(%key, "fenced out: another execution took the key over and its outcome is the answer");
                Committed::Fenced
            }
            Ok(Write::Missing) => {
                tracing::error!(%key, "the record vanished from the store while it was in flight: the outcome is not stored");
                Committed::Missing
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, %key, "the outcome could not be stored; the key stays claimed");
                Committed::Unacknowledged
            }
        }
    }

    /// Nothing was executed, or the answer asks for the same request again: the key may be used again.
    ///
    /// A record that was taken over stays, so that the numbers of the attempts, which others use as fencing
    /// tokens, never start anew: the next retry executes, or asks, as the route does after a crash.
    async fn release<B>(self, own: Answered<B>) -> Answered<B> {
        let taken_over = self.lease.execution().attempt() > 1;
        if taken_over && !matches!(self.settings.on_crash, OnCrash::Refuse) {
            return self.give_up(LastWrite::Abandon, own).await;
        }
        self.give_up(LastWrite::Release, own).await
    }

    /// Gives the key up without an outcome, tells those who wait, and says what the client gets: this run's own
    /// answer, unless it was fenced out. If the store does not acknowledge it, the claim stays until its lease
    /// lapses.
    async fn give_up<B>(mut self, write: LastWrite<'_>, own: Answered<B>) -> Answered<B> {
        let key = self.lease.held().key;
        let written = self.insist(write).await;
        self.engine.wait_room().poke(&key);
        match written {
            Ok(Write::Fenced) => return Err(FencedOut),
            Ok(Write::Applied | Write::Missing) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, %key, "the key could not be given up; it stays claimed until its lease lapses");
            }
        }
        own
    }

    /// Repeats a last write until it is acknowledged, for three times the store's patience.
    async fn insist(&mut self, write: LastWrite<'_>) -> Result<Write, StoreError> {
        let held = *self.lease.held();
        let engine = self.engine.clone();
        let patience = engine.ops().patience();
        let give_up = Instant::now() + patience * 3;
        let mut pause = patience / 50;
        loop {
            let error = match self.lease.keep(write.send(&engine, &held)).await {
                Ok(written) => return Ok(written),
                Err(error) => error,
            };
            if !error.is_transient() || Instant::now() + pause >= give_up {
                return Err(error);
            }
            self.lease.keep(sleep(jittered(pause))).await;
            pause = (pause * 2).min(patience / 2);
        }
    }

    /// Goes on storing an outcome whose client has been told that it is unknown, until the execution's lifetime
    /// is over. A late completion is as good as a timely one.
    fn persist(mut self, outcome: Outcome) {
        let counted = self.unattended().enter();
        let task = async move {
            let _counted = counted;
            while Instant::now() < self.lease.end_of_life() {
                match self.commit(&outcome).await {
                    Committed::Unacknowledged => {
                        self.lease
                            .keep(sleep(jittered(Duration::from_secs(1))))
                            .await;
                    }
                    _ => return,
                }
            }
        };
        tokio::spawn(task);
    }

    fn refuse<B>(&self, code: ProblemCode) -> (Ended, Reply<B>) {
        self.engine.refused(&code.into())
    }

    pub(crate) fn lease(&mut self) -> &mut Lease {
        &mut self.lease
    }

    pub(crate) fn max_response(&self) -> usize {
        self.settings.max_response
    }

    pub(crate) fn unattended(&self) -> Counted {
        self.engine.unattended().clone()
    }
}

/// The writes that end a lease.
#[derive(Clone, Copy)]
enum LastWrite<'a> {
    Complete(&'a Outcome),
    Release,
    Abandon,
}

impl LastWrite<'_> {
    async fn send(
        self,
        engine: &Idempotency,
        held: &crate::store::Held,
    ) -> Result<Write, StoreError> {
        match self {
            Self::Complete(outcome) => engine.ops().complete(held, outcome).await,
            Self::Release => engine.ops().release(&held.key, &held.token).await,
            Self::Abandon => engine.ops().abandon(&held.key, &held.token).await,
        }
    }
}

/// The whole body, if it arrives whole, without trailers and within the limit.
async fn collect<B>(body: B, limit: usize) -> Option<Bytes>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    match Limited::new(body, limit).collect().await {
        Ok(collected) if collected.trailers().is_none() => Some(collected.to_bytes()),
        Ok(_) => None,
        Err(error) => {
            tracing::error!(
                error = &*error as &dyn std::error::Error,
                "the response body broke off"
            );
            None
        }
    }
}
