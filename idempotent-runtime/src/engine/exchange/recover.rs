//! A crashed execution on a route with a recovery function.

use tokio::time::Instant;

use super::{
    decide::{Next, next},
    state::{Exchange, KeyedRequest},
};
use crate::{
    engine::{handler::Handler, reply::Reply, run::FencedOut},
    observe::RequestResult,
    policy::OnCrash,
    problem::ProblemCode,
    store::{Acquisition, Claim, Token},
};

impl Exchange {
    /// An execution crashed: takes the key over, so that one retry at a time asks the function, and asks it.
    pub(super) async fn recover<H: Handler>(
        &mut self,
        mut claim: Claim,
        request: Box<KeyedRequest>,
        handler: H,
    ) -> (RequestResult, Reply<H::Body>) {
        let OnCrash::Recover(recover) = self.settings.on_crash else {
            return self.refuse_as(ProblemCode::OutcomeUnknown);
        };
        if self.admission.is_none() {
            // This request has waited, and had no admission meanwhile.
            self.admission = self.core.in_flight.admit();
        }
        if self.admission.is_none() {
            return self.refuse_as(ProblemCode::Overloaded);
        }
        claim.token = Token::random();
        claim.take_over = true;
        self.detach.must_finish();
        let sent = Instant::now();
        let attempt = match self.core.store.acquire(&claim, sent).await {
            Ok(Acquisition::Acquired { attempt }) => attempt,
            Ok(seen) => {
                self.detach.may_drop();
                return self.overtaken(seen, &claim);
            }
            Err(failed) => return self.not_claimed(&failed, &claim),
        };
        let (key, request) = request.into_parts();
        let run = self.run(attempt, sent, &claim, key);
        if self.core.in_flight.is_closed() {
            return self.decline(run, claim).await;
        }
        match run.recover(recover, request.clone()).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(FencedOut)) => self.winner(claim).await,
            Err(run) => self.execute(run, claim, request, handler).await,
        }
    }

    /// Another retry was faster to ask: its outcome, or a conflict while it asks.
    fn overtaken<B>(&self, seen: Acquisition, claim: &Claim) -> (RequestResult, Reply<B>) {
        match next(seen, &self.settings) {
            Next::Answer(answer) => self.reply(answer, false, claim),
            _ => self.refuse_as(ProblemCode::OutcomeUnknown),
        }
    }
}
