//! One keyed request, from its arrival to its answer.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | what an exchange holds |
//! | `receive` | everything before the store: caller, key, body, fingerprint, admission |
//! | `look` | a look at the key: in this process, then in the store |
//! | `rotation` | the same where a record may be under another secret too |
//! | `decide` | what was seen and what the route asks for -> the next step (pure) |
//! | `follow` | waits for another execution until its outcome is known or the key falls to this request |
//! | `execute` | starts the execution, or the recovery function first; answers for one that was fenced out |
//! | `store_failed` | a claim that the store did not acknowledge |

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body;

use super::{
    body::ResponseBody,
    handler::{BoxError, Handler},
    reply::{Answer, Reply, first_hand, name_outcome, nothing_executed, refuse},
};
use crate::{
    catch_unwind::{Panicked, catch_unwind, catching, drop_catching},
    credentials::signing_scheme,
    fingerprint::Difference,
    observe::{self, RequestResult, Stopwatch},
    policy::OnCrash,
    problem::{Problem, ProblemCode},
};

mod decide;
mod execute;
mod follow;
mod look;
mod receive;
mod rotation;
mod state;
mod store_failed;

use decide::{Decision, Next, Seen, decide};
use receive::Refusal;
pub(super) use state::Exchange;
use state::{Claiming, KeyedRequest};

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
        let (head, body) = request.into_parts();
        // Each step in a box of its own, under 1 KB: larger ones miss the allocator's fast lists, and in a process
        // that has served many requests those cost more than all the rest of a replay.
        //
        // What finds out who calls, the body and the destructors of both are foreign code, and may panic.
        let received = match catch_unwind(|| self.authentication(&handler, head)) {
            Ok(authentication) => catching(self.receive(authentication, body)).await,
            Err(panicked) => Err(panicked),
        };
        let (result, mut reply) = match received {
            Ok(Ok(request)) => {
                let answered = catching(self.claim_and_answer(request, handler)).await;
                answered.unwrap_or_else(|Panicked| {
                    tracing::error!(
                        "a keyed request panicked outside of its handler; the outcome is unknown"
                    );
                    self.refuse_as(ProblemCode::OutcomeUnknown)
                })
            }
            Ok(Err(Refusal::Problem(problem))) => {
                drop_catching(handler);
                refuse(&self.core, &problem)
            }
            Ok(Err(Refusal::Rejected(rejection))) => {
                drop_catching(handler);
                let rejection = first_hand(&self.core, *rejection);
                (
                    RequestResult::Rejected,
                    rejection.map(ResponseBody::rejection),
                )
            }
            Err(Panicked) => {
                drop_catching(handler);
                tracing::error!(
                    "a request's body, or a function of its route such as `scope`, panicked; nothing was executed"
                );
                refuse(&self.core, &Problem::panicked_before_the_handler())
            }
        };
        if nothing_executed(result, &reply)
            && let Some(refused) = self.refused.take()
        {
            refused.mark(&mut reply);
        }
        observe::request(self.route.label(), result);
        name_outcome(&self.core, result, &mut reply);
        reply
    }

    /// Claims the key and does what the decision says.
    async fn claim_and_answer<H: Handler>(
        &mut self,
        mut request: Box<KeyedRequest>,
        handler: H,
    ) -> (RequestResult, Reply<H::Body>) {
        let mut claiming = self.claiming(&mut request);
        let mut decision = decide(self.look(&mut claiming).await, &self.settings);
        let (mut waited, mut crashed) = (false, false);
        loop {
            let next = match decision {
                // The client left while the acquire was under way: nobody is there to wait.
                Decision::Wait { remaining } if self.detach.client_left() => {
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
                            return match self.settings.on_crash {
                                OnCrash::Recover(recover) => {
                                    let run = self.run(attempt, sent, claiming, request);
                                    Box::pin(self.recover(run, recover, handler)).await
                                }
                                OnCrash::Refuse | OnCrash::Retry => {
                                    let run = self.run(attempt, sent, claiming, request);
                                    Box::pin(self.execute(run, handler)).await
                                }
                            };
                        }
                        // The store does not take the lease over: it is asked again later, not at once.
                        Seen::Lapsed { lease: again } if again == lease => {
                            let remaining = Duration::from_millis(100);
                            decide(Seen::InFlight { remaining }, &self.settings)
                        }
                        seen => decide(seen, &self.settings),
                    }
                }
                Next::Execute { attempt, sent } => {
                    // A late copy of a take-over may have been applied since: then the crash is still to be asked about.
                    let took_over = claiming.doubt.must_abandon();
                    let run = self.run(attempt, sent, claiming, request);
                    if let (true, OnCrash::Recover(recover)) = (took_over, self.settings.on_crash) {
                        return Box::pin(self.recover(run, recover, handler)).await;
                    }
                    // A replay does not pay for the room that an execution takes.
                    return Box::pin(self.execute(run, handler)).await;
                }
                Next::Answer(answer) => {
                    let signed_anew = matches!(answer, Answer::Mismatch(Difference::Caller))
                        .then(|| signing_scheme(&request.head.headers));
                    // Both hold what the application put there, whose destructors may panic.
                    drop_catching((request, handler));
                    if let Some(scheme) = signed_anew.flatten() {
                        self.core.warnings.signed_anew(scheme);
                        return self.refuse(&Problem::signed_anew(scheme));
                    }
                    return self.reply(answer, waited, &claiming.claim);
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

    /// Waits for another execution, and records how long.
    async fn wait(&mut self, claiming: &mut Claiming, remaining: Duration) -> Next {
        let since = Stopwatch::start();
        let next = self.follow(claiming, remaining).await;
        observe::waited(self.route.label(), since);
        next
    }
}
