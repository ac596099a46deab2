//! One keyed request, from its arrival to its answer.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | what an exchange holds |
//! | `receive` | everything before the store: key, body, scope, fingerprint, admission |
//! | `decide` | what the store answered and what the route asks for -> the next step (pure) |
//! | `follow` | waits for another execution until its outcome is known or the key falls to this request |
//! | `execute` | starts the execution, and answers for one that was fenced out |
//! | `recover` | a crashed execution: asks the route's function |
//! | `store_failed` | a claim that the store did not acknowledge |

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tokio::time::Instant;

use super::{
    handler::{BoxError, Handler},
    reply::{Reply, conflict, refuse},
};
use crate::{
    observe::{self, RequestResult, Stopwatch},
    problem::ProblemCode,
    store::{Acquisition, Claim},
};

mod decide;
mod execute;
mod follow;
mod receive;
mod recover;
mod state;
mod store_failed;

use decide::{Decision, Next, decide};
use follow::FollowOutcome;
pub(super) use state::Exchange;
use state::KeyedRequest;

impl Exchange {
    /// Serves the request, and records how that ended.
    pub(crate) async fn serve<B, H>(
        mut self: Box<Self>,
        request: Request<B>,
        handler: H,
    ) -> Reply<H::Body>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
        H: Handler,
    {
        // Each step in a box of its own, under 1 KB: larger ones miss the allocator's fast lists, and in a process
        // that has served many requests those cost more than all the rest of a replay.
        let (result, reply) = match Box::pin(self.receive(request)).await {
            Ok(request) => Box::pin(self.claim_and_answer(request, handler)).await,
            Err(refusal) => refuse(&self.core, &refusal),
        };
        observe::request(self.route.label(), result);
        reply
    }

    /// Claims the key and does what the decision says.
    async fn claim_and_answer<H: Handler>(
        &mut self,
        request: Box<KeyedRequest>,
        handler: H,
    ) -> (RequestResult, Reply<H::Body>) {
        let claim = self.claim(&request);
        // From here on the claim may exist: this future must run to its end.
        self.detach.must_finish();
        let sent = Instant::now();
        let seen = match self.core.store.acquire(&claim, sent).await {
            Ok(seen) => seen,
            Err(failed) => {
                return Box::pin(self.store_failed(&failed, claim, request, handler)).await;
            }
        };
        if !matches!(seen, Acquisition::Acquired { .. }) {
            self.detach.may_drop();
        }
        match decide(seen, &self.settings) {
            // The client left while the acquire was under way: nobody is there to wait.
            Decision::Wait { .. } if self.detach.client_left() => {
                self.refuse(&conflict(self.settings.lease))
            }
            Decision::Wait { remaining } => {
                Box::pin(self.wait(remaining, claim, request, handler)).await
            }
            Decision::Proceed(next) => {
                self.proceed(next, sent, claim, request, handler, false)
                    .await
            }
        }
    }

    /// Waits for another execution and does what follows from its end.
    async fn wait<H: Handler>(
        &mut self,
        remaining: std::time::Duration,
        claim: Claim,
        request: Box<KeyedRequest>,
        handler: H,
    ) -> (RequestResult, Reply<H::Body>) {
        let since = Stopwatch::start();
        let followed = self.follow(&claim, remaining).await;
        observe::waited(self.route.label(), since);
        match followed {
            FollowOutcome::Proceed(next, sent) => {
                self.proceed(next, sent, claim, request, handler, true)
                    .await
            }
            FollowOutcome::Full | FollowOutcome::ShutDown => {
                self.refuse_as(ProblemCode::Overloaded)
            }
            FollowOutcome::StoreFailed(failed) => self.not_claimed(&failed, &claim),
            // Nobody reads this answer.
            FollowOutcome::ClientLeft => self.refuse(&conflict(self.settings.lease)),
        }
    }

    async fn proceed<H: Handler>(
        &mut self,
        next: Next,
        sent: Instant,
        claim: Claim,
        request: Box<KeyedRequest>,
        handler: H,
        waited: bool,
    ) -> (RequestResult, Reply<H::Body>) {
        match next {
            Next::Execute { attempt } => {
                let (key, request) = request.into_parts();
                let mut run = self.run(attempt, sent, &claim, key);
                if !run.may_start().await {
                    return Box::pin(self.decline(run, claim)).await;
                }
                // A replay does not pay for the room that an execution takes.
                Box::pin(self.execute(run, claim, request, handler)).await
            }
            Next::Recover => Box::pin(self.recover(claim, request, handler)).await,
            Next::Answer(answer) => self.reply(answer, waited, &claim),
        }
    }
}
