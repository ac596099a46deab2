//! One keyed request, from its arrival to its answer.
//!
//! | file | what it does |
//! |---|---|
//! | `serve` | the future that an adapter polls, if there is anything to poll |
//! | `stage` | how far the request has come |
//! | `state` | what an exchange holds |
//! | `receive` | everything before the store: caller, key, body, fingerprint |
//! | `look` | a look at the key: in this process, then in the store |
//! | `rotation` | the same where a record may be under another secret too |
//! | `decide` | what was seen and what the route asks for -> the next step (pure) |
//! | `follow` | waits for another execution until its outcome is known or the key falls to this request |
//! | `execute` | starts the execution, or the recovery function first |
//! | `winner` | answers for an execution that was fenced out |
//! | `store_failed` | a claim that the store did not acknowledge |

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, request::Parts};
use http_body::Body;
use tokio::time::Instant;

use super::{
    body::ResponseBody,
    core::detach_handle::DetachHandle,
    handler::{BoxError, Handler},
    reply::first_hand,
    run::{After, Answered},
};
use crate::{
    catch_unwind::{Panicked, catch_unwind, catching, drop_catching},
    observe::{RequestResult, Stopwatch},
    policy::OnCrash,
    problem::{Problem, ProblemCode},
};

mod decide;
mod execute;
mod follow;
mod look;
mod receive;
mod rotation;
mod serve;
mod stage;
mod state;
mod store_failed;
mod winner;

use decide::{Decision, Next, Seen, decide};
use execute::{execute, recover};
use look::Looked;
use receive::{Reached, Received, Refusal};
pub(crate) use serve::Served;
use stage::{Stage, slow};
pub(super) use state::Exchange;
use state::{Claiming, Identified, KeyedRequest};

impl Exchange {
    /// Serves a request as far as nothing waits.
    fn begin<B, H>(mut self, request: Request<B>, handler: H) -> Stage<H>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
        H: Handler,
    {
        let (head, body) = request.into_parts();
        // What finds out who calls, the body and the destructors of both are foreign code, and may panic.
        let received = if handler.has_caller() || self.core.caller.is_some() {
            catch_unwind(|| self.authenticate(&handler, head, body))
        } else {
            match catch_unwind(|| self.read_now(&head, None, body)) {
                Ok(Ok(Reached::End(identified))) => {
                    return self.claim_now(identified, head, handler);
                }
                Ok(reached) => Ok(Received::Head(head, reached)),
                Err(panicked) => {
                    drop_catching(head);
                    Err(panicked)
                }
            }
        };
        match received {
            Ok(Received::Head(head, Err(refusal))) => {
                drop_catching((head, handler));
                let answered = self.refused(refusal);
                self.end(answered)
            }
            Ok(received) => self.wait_for(|exchange| exchange.serve(received, handler)),
            Err(Panicked) => {
                drop_catching(handler);
                let answered = self.panicked_before_the_handler();
                self.end(answered)
            }
        }
    }

    /// Serves a request that waits before it is identified.
    async fn serve<B, H>(
        mut self: Box<Self>,
        received: Received<B>,
        handler: H,
    ) -> Answered<H::Body>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
        H: Handler,
    {
        match catching(self.receive(received)).await {
            Ok(Ok(KeyedRequest {
                mut identified,
                head,
            })) => {
                let mut claiming = self.claiming(&mut identified, &head);
                let looked = self.look_now(&mut claiming);
                let (claiming, request) = boxed(claiming, identified, head);
                self.look_on_and_answer(looked, claiming, request, handler)
                    .await
            }
            Ok(Err(refusal)) => {
                drop_catching(handler);
                self.refused(refusal)
            }
            Err(Panicked) => {
                drop_catching(handler);
                self.panicked_before_the_handler()
            }
        }
    }

    /// Claims the key and does what the decision says, as far as nothing waits.
    fn claim_now<H: Handler>(
        mut self,
        mut identified: Identified,
        head: Parts,
        handler: H,
    ) -> Stage<H> {
        let mut claiming = self.claiming(&mut identified, &head);
        let decision = match self.look_now(&mut claiming) {
            Looked::Ended(seen) => decide(seen, self.settings()),
            looked => {
                let (claiming, request) = boxed(claiming, identified, head);
                return self.wait_for(|exchange| {
                    exchange.look_on_and_answer(looked, claiming, request, handler)
                });
            }
        };
        match decision {
            Decision::Proceed(Next::Execute { attempt, sent })
                if !claiming.doubt.must_abandon() =>
            {
                self.execute_now((attempt, sent), claiming, identified, head, handler)
            }
            Decision::Proceed(Next::Answer(answer)) => {
                // Both hold what the application put there, whose destructors may panic.
                let answered = self.reply(answer, false, &claiming.claim, &head);
                drop_catching((head, handler));
                self.end(answered)
            }
            decision => {
                let (claiming, request) = boxed(claiming, identified, head);
                self.wait_for(|exchange| exchange.answer_as(decision, claiming, request, handler))
            }
        }
    }

    /// The answer is here.
    fn end<H: Handler>(&self, answered: Answered<H::Body>) -> Stage<H> {
        Stage::answered(&self.core, &self.plan, answered)
    }

    /// What is left to do waits.
    fn wait_for<H, F>(mut self, rest: impl FnOnce(Box<Self>) -> F) -> Stage<H>
    where
        H: Handler,
        F: Future<Output = Answered<H::Body>> + Send + 'static,
    {
        let after = After {
            core: Arc::clone(&self.core),
            plan: Arc::clone(&self.plan),
            detach: DetachHandle::Request(Arc::clone(self.detach())),
        };
        slow(after, rest(Box::new(self)))
    }

    /// Looks at the key to the end, and does what the decision says.
    async fn look_on_and_answer<H: Handler>(
        mut self: Box<Self>,
        looked: Looked,
        mut claiming: Box<Claiming>,
        request: Box<KeyedRequest>,
        handler: H,
    ) -> Answered<H::Body> {
        let seen = self.look_on(&mut claiming, looked).await;
        let decision = decide(seen, self.settings());
        self.answer_as(decision, claiming, request, handler).await
    }

    /// Does what the decision says.
    async fn answer_as<H: Handler>(
        mut self: Box<Self>,
        mut decision: Decision,
        mut claiming: Box<Claiming>,
        request: Box<KeyedRequest>,
        handler: H,
    ) -> Answered<H::Body> {
        let (mut waited, mut crashed) = (false, false);
        loop {
            let next = match decision {
                // The client left while the acquire was under way: nobody is there to wait.
                Decision::Wait { remaining } if self.client_left() => {
                    return self.conflict(remaining);
                }
                Decision::Wait { remaining } => {
                    waited = true;
                    Box::pin(self.wait(&mut claiming, remaining)).await
                }
                Decision::Proceed(next) => next,
            };
            decision = match next {
                Next::TakeOver { lease } => {
                    crashed = true;
                    match Box::pin(self.take_over(&mut claiming, lease)).await {
                        Seen::Acquired { attempt, sent } => {
                            self.plan.metrics.took_over();
                            let acquired = (attempt, sent);
                            let executed = self.execute(acquired, true, claiming, request, handler);
                            return Box::pin(executed).await;
                        }
                        // The store does not take the lease over: it is asked again later, not at once.
                        Seen::Lapsed { lease: again } if again == lease => {
                            let remaining = Duration::from_millis(100);
                            decide(Seen::InFlight { remaining }, self.settings())
                        }
                        seen => decide(seen, self.settings()),
                    }
                }
                Next::Execute { attempt, sent } => {
                    // A late copy of a take-over may have been applied since: then the crash is still to be asked about.
                    let took_over = claiming.doubt.must_abandon();
                    let acquired = (attempt, sent);
                    let executed = self.execute(acquired, took_over, claiming, request, handler);
                    return Box::pin(executed).await;
                }
                Next::Answer(answer) => {
                    // Both hold what the application put there, whose destructors may panic.
                    let answered = self.reply(answer, waited, &claiming.claim, &request.head);
                    drop_catching((request, handler));
                    return answered;
                }
                Next::Overloaded => {
                    drop_catching((request, handler));
                    return self.refuse_as(ProblemCode::Overloaded);
                }
                Next::StoreFailed(error) => {
                    // Only before the store said anything of another request: after that the effect may have happened.
                    let may_execute = !waited && !crashed;
                    let failed = self.store_failed(error, claiming, request, handler, may_execute);
                    return Box::pin(failed).await;
                }
            };
        }
    }

    /// Executes the handler, or asks first what became of the execution whose lease was taken over.
    async fn execute<H: Handler>(
        self: Box<Self>,
        acquired: (u32, Instant),
        took_over: bool,
        claiming: Box<Claiming>,
        request: Box<KeyedRequest>,
        handler: H,
    ) -> Answered<H::Body> {
        let on_crash = self.settings().on_crash;
        let run = self.start(acquired, *claiming, *request);
        match on_crash {
            OnCrash::Recover(find) if took_over => recover(run, find, handler).await,
            _ => execute(run, handler).await,
        }
    }

    /// Waits for another execution, and records how long.
    async fn wait(&mut self, claiming: &mut Claiming, remaining: Duration) -> Next {
        let since = Stopwatch::start();
        let next = self.follow(claiming, remaining).await;
        self.plan.metrics.waited(since);
        next
    }

    /// The answer to a request that goes no further.
    fn refused<B>(&self, refusal: Refusal) -> Answered<B> {
        match refusal {
            Refusal::Problem(problem) => self.refuse(&problem),
            Refusal::Rejected(rejection) => {
                let rejection = first_hand(&self.core, *rejection);
                let reply = rejection.map(ResponseBody::rejection);
                (RequestResult::Rejected, reply)
            }
        }
    }

    fn panicked_before_the_handler<B>(&self) -> Answered<B> {
        tracing::error!(
            "a request's body, or a function of its route such as `scope`, panicked; nothing was executed"
        );
        self.refuse(&Problem::panicked_before_the_handler())
    }
}

/// In boxes, as what is moved from one future into the next is: each would have room for it, and large ones are slow to
/// allocate.
fn boxed(
    claiming: Claiming,
    identified: Identified,
    head: Parts,
) -> (Box<Claiming>, Box<KeyedRequest>) {
    let request = KeyedRequest { identified, head };
    (Box::new(claiming), Box::new(request))
}
