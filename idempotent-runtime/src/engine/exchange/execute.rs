//! Starting the execution, and answering for one that was fenced out.

use std::future::Future;

use bytes::Bytes;
use http::Request;
use tokio::time::{Instant, sleep};

use super::state::Exchange;
use crate::{
    backoff::Backoff,
    engine::{
        handler::Handler,
        reply::{Reply, conflict},
        run::{FencedOut, Run},
    },
    observe::RequestResult,
    problem::ProblemCode,
    store::{Claim, RecordState},
};

impl Exchange {
    /// Executes the handler. It is called at once, so that the future that this returns does not carry the request along.
    pub(super) fn execute<H: Handler>(
        &self,
        run: Box<Run>,
        claim: Claim,
        request: Request<Bytes>,
        handler: H,
    ) -> impl Future<Output = (RequestResult, Reply<H::Body>)> + Send {
        let running = run.handler(handler, request, self.route.label());
        async move {
            match running.await {
                Ok(answered) => answered,
                Err(FencedOut) => Box::pin(self.winner(claim)).await,
            }
        }
    }

    /// The key was claimed too late to start anything.
    pub(super) async fn decline<B>(
        &self,
        run: Box<Run>,
        claim: Claim,
    ) -> (RequestResult, Reply<B>) {
        match run.decline().await {
            Ok(answered) => answered,
            Err(FencedOut) => self.winner(claim).await,
        }
    }

    /// Fenced out: the answer is the winner's outcome, never our own.
    pub(super) async fn winner<B>(&self, claim: Claim) -> (RequestResult, Reply<B>) {
        let deadline = Instant::now() + self.settings.wait_timeout;
        // Nothing is owned any more. The winner is read, not followed: this request must never execute again, whatever
        // becomes of the winner.
        self.detach.may_drop();
        let mut backoff = Backoff::polling();
        loop {
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
                return self.refuse(&conflict(remaining));
            }
            sleep(backoff.pause()).await;
        }
    }
}
