//! Starting the execution, or the recovery function before it, and answering for one that was fenced out.

use tokio::time::{Instant, sleep};

use super::state::{Beside, Exchange, Started};
use crate::{
    backoff::Backoff,
    catch_unwind::drop_catching,
    engine::{
        handler::Handler,
        reply::Reply,
        run::{FencedOut, RunResult},
    },
    observe::RequestResult,
    policy::RecoverFn,
    problem::ProblemCode,
    store::{Claim, RecordState},
};

impl Exchange {
    /// Executes the handler.
    pub(super) async fn execute<H: Handler>(
        &mut self,
        started: Result<Started, Beside>,
        handler: H,
    ) -> (RequestResult, Reply<H::Body>) {
        let Started {
            run,
            claim,
            request,
        } = match started {
            Ok(started) => started,
            Err(Beside(remaining)) => return self.conflict(remaining),
        };
        if !run.may_start() {
            let declined = Box::pin(run.decline()).await;
            return self.answer(declined, claim).await;
        }
        let (mut run, handler) = match run.until_ready(handler).await {
            Ok(ready) => ready,
            Err(not_ready) => {
                drop_catching(request);
                return self.answer(not_ready, claim).await;
            }
        };
        run.doubt.start();
        let result = run.handler(handler, request, self.route.label()).await;
        self.answer(result, claim).await
    }

    /// An execution crashed, and this request has taken its lease over: asks the recovery function, so one retry at a time
    /// asks, and executes the handler if nothing was executed.
    pub(super) async fn recover<H: Handler>(
        &mut self,
        started: Result<Started, Beside>,
        recover: RecoverFn,
        mut handler: H,
    ) -> (RequestResult, Reply<H::Body>) {
        let Started {
            mut run,
            claim,
            request,
        } = match started {
            Ok(started) => started,
            Err(Beside(remaining)) => return self.conflict(remaining),
        };
        if !run.may_start() || !run.begin() {
            let declined = run.decline().await;
            return self.answer(declined, claim).await;
        }
        // Before the start: a clone runs code of the application's.
        let retry = request.clone();
        run.doubt.start();
        match run.recover(recover, &mut handler, retry).await {
            Ok(result) => self.answer(result, claim).await,
            Err(run) => {
                let (run, handler) = match run.until_ready(handler).await {
                    Ok(ready) => ready,
                    Err(not_ready) => {
                        drop_catching(request);
                        return self.answer(not_ready, claim).await;
                    }
                };
                let result = run.handler(handler, request, self.route.label()).await;
                self.answer(result, claim).await
            }
        }
    }

    async fn answer<B>(&mut self, result: RunResult<B>, claim: Claim) -> (RequestResult, Reply<B>) {
        let FencedOut = match result {
            Ok(answered) => return answered,
            Err(fenced_out) => fenced_out,
        };
        // This request executed, whatever its answer says of the winner.
        self.refused = None;
        Box::pin(self.winner(claim)).await
    }

    /// Fenced out: the answer is the winner's outcome, never our own.
    pub(super) async fn winner<B>(&self, claim: Claim) -> (RequestResult, Reply<B>) {
        let deadline = Instant::now() + self.settings.wait_timeout;
        // Nothing is owned any more. The winner is read, not followed: this request must never execute again, whatever
        // becomes of the winner.
        self.detach.may_drop();
        let mut backoff = Backoff::polling();
        loop {
            if let Some(lease) = self.core.in_flight.lease(&claim.key) {
                // The winner is of this process, whatever its record says by now.
                if Instant::now() >= deadline || self.detach.client_left() {
                    return self.conflict(lease.remaining());
                }
                sleep(backoff.pause()).await;
                continue;
            }
            let record = match self.core.store.get(&claim.key).await {
                Ok(record) => record,
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    sleep(backoff.pause()).await;
                    continue;
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the winner's outcome cannot be read"
                    );
                    return self.refuse_as(ProblemCode::OutcomeUnknown);
                }
            };
            let record = record.filter(|record| record.fingerprint == claim.fingerprint);
            let remaining = match record.map(|record| record.state) {
                Some(RecordState::Completed(outcome)) => {
                    return self.reply(outcome.into(), true, &claim);
                }
                Some(RecordState::InFlight { remaining }) if !remaining.is_zero() => remaining,
                _ => return self.refuse_as(ProblemCode::OutcomeUnknown),
            };
            if Instant::now() >= deadline || self.detach.client_left() {
                return self.conflict(remaining);
            }
            sleep(backoff.pause()).await;
        }
    }
}
