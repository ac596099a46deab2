//! Following another execution until its outcome is known, or the key falls to this request.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    decide::{Next, Seen, next},
    state::{Claiming, Exchange},
};
use crate::{
    engine::{
        reply::Answer,
        wait::{Turn, Verdict, Waiter},
    },
    policy::OnCrash,
    store::Claim,
};

impl Exchange {
    /// Waits for the outcome of the execution in flight, at most `wait_timeout`.
    pub(super) async fn follow(&mut self, claiming: &mut Claiming, remaining: Duration) -> Next {
        let deadline = self.deadline();
        // A waiting request executes nothing: a shutdown does not wait for it, but ends its waiting.
        self.admission = None;
        let core = Arc::clone(&self.core);
        let Some(mut waiter) = core
            .wait_queues
            .join(claiming.claim.key, self.waiting_bytes)
        else {
            return Next::Answer(Answer::Conflict { remaining });
        };
        // After joining, so that a shutdown either finds this waiter or was seen here.
        if core.in_flight.is_closed() {
            return Next::Overloaded;
        }
        let mut remaining = remaining;
        loop {
            let ended = match waiter.turn(deadline).await {
                None => Some(Next::Answer(Answer::Conflict { remaining })),
                Some(Turn::Verdict(verdict)) => Some(conclude(verdict, claiming)),
                Some(Turn::Lead) => {
                    self.lead(&mut waiter, claiming, deadline, &mut remaining)
                        .await
                }
            };
            if let Some(ended) = ended {
                return ended;
            }
            let queue = *waiter.key();
            if queue != claiming.claim.key {
                // The record is under the other secret: this request waits there, and so will the others here.
                drop(waiter);
                core.wait_queues.notify(&queue);
                let joined = core
                    .wait_queues
                    .join(claiming.claim.key, self.waiting_bytes);
                let Some(there) = joined else {
                    return Next::Answer(Answer::Conflict { remaining });
                };
                waiter = there;
            }
        }
    }

    /// Looks at the key for all that wait, until one of them has an answer; `None` when there is a verdict to be read, or
    /// another queue to wait in.
    async fn lead(
        &mut self,
        waiter: &mut Waiter<'_>,
        claiming: &mut Claiming,
        deadline: Instant,
        remaining: &mut Duration,
    ) -> Option<Next> {
        loop {
            waiter.pause(*remaining, deadline).await;
            if waiter.has_verdict() {
                return None;
            }
            let seen = self.look(claiming).await;
            if self.client_left() && !matches!(seen, Seen::Acquired { .. }) {
                // Nobody reads this answer.
                return Some(Next::Answer(Answer::Conflict {
                    remaining: *remaining,
                }));
            }
            if *waiter.key() != claiming.claim.key {
                return match seen {
                    Seen::InFlight { .. } | Seen::Failed(_) => None,
                    seen => Some(next(seen, self.settings())),
                };
            }
            let fingerprint = claiming.claim.fingerprint;
            let mut failed = None;
            match seen {
                Seen::InFlight { remaining: left } => *remaining = left,
                Seen::Completed(outcome) => {
                    waiter.publish(Verdict::Completed {
                        fingerprint,
                        outcome,
                    });
                    return None;
                }
                Seen::Lapsed { .. } | Seen::InDoubt if self.stays_unknown(&seen) => {
                    waiter.publish(Verdict::Unknown { fingerprint });
                    return None;
                }
                // A place may be free before the deadline; until then this request waits.
                Seen::NoRoom if Instant::now() < deadline => continue,
                // The store may be back before the deadline; until then nothing is known.
                Seen::Failed(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a poll failed");
                    failed = Some(error);
                }
                seen => return Some(next(seen, self.settings())),
            }
            if Instant::now() >= deadline {
                return Some(match failed {
                    Some(error) => Next::StoreFailed(error),
                    None => Next::Answer(Answer::Conflict {
                        remaining: *remaining,
                    }),
                });
            }
        }
    }

    /// Whether this was seen of an execution that the route does not follow up.
    fn stays_unknown(&self, seen: &Seen) -> bool {
        matches!(seen, Seen::InDoubt) || matches!(self.settings().on_crash, OnCrash::Refuse)
    }
}

/// What follows from a published verdict for this request.
fn conclude(verdict: Verdict, claiming: &Claiming) -> Next {
    let Claim { fingerprint, .. } = claiming.claim;
    let (first, answer) = match verdict {
        Verdict::ShutDown => return Next::Overloaded,
        Verdict::Completed {
            fingerprint,
            outcome,
        } => (fingerprint, Answer::from(outcome)),
        Verdict::Unknown { fingerprint } => (fingerprint, Answer::Unknown),
    };
    // If they differ, the key was released meanwhile and now belongs to another request.
    let difference = fingerprint.difference(&first);
    Next::Answer(difference.map_or(answer, Answer::Mismatch))
}
