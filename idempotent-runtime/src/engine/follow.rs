//! Following another execution until its outcome is known, or the key falls to this request.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    cell::Turn,
    decide::{Answer, Step, decide},
    ops::Unclaimed,
    visit::Visit,
    wait::{Verdict, Waiter},
};
use crate::{
    policy::OnCrash,
    store::{Acquisition, Claim, RecordState},
};

/// How following ended.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The next step is known. An `Execute` was acquired by an acquire sent at that instant.
    Step(Step, Instant),
    /// The waiting places are taken.
    Full,
    /// The engine shut down.
    ShutDown,
    /// The deadline passed, and the last look at the store had failed.
    StoreFailed(Unclaimed),
    /// Nobody is there to be answered.
    ClientLeft,
}

impl Visit {
    /// Waits for the outcome of the execution in flight, at most `wait_timeout`.
    pub(crate) async fn follow(&mut self, claim: &Claim, remaining: Duration) -> Followed {
        let deadline = Instant::now() + self.settings.wait_timeout;
        // Waiting is not work: a shutdown does not wait for waiters, it ends them.
        self.admission = None;
        let engine = self.engine.clone();
        let Some(mut waiter) = engine.wait_room().join(claim.key) else {
            return Followed::Full;
        };
        // After joining, so that a shutdown either finds this waiter or was seen here.
        if engine.running().is_closed() {
            return Followed::ShutDown;
        }
        let mut remaining = remaining;
        loop {
            let ended = match waiter.turn(deadline).await {
                None => Some(conflict(remaining)),
                Some(Turn::Verdict(verdict)) => Some(self.told(verdict, claim)),
                Some(Turn::Lead) => {
                    self.lead(&mut waiter, claim, deadline, &mut remaining)
                        .await
                }
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// What a published verdict means for this request.
    fn told(&self, verdict: Verdict, claim: &Claim) -> Followed {
        let seen = match verdict {
            Verdict::ShutDown => return Followed::ShutDown,
            Verdict::Completed {
                fingerprint,
                outcome,
            } if fingerprint == claim.fingerprint => Acquisition::Completed(outcome),
            Verdict::Unknown { fingerprint } if fingerprint == claim.fingerprint => {
                Acquisition::Unknown
            }
            // The key was released meanwhile and now belongs to a request that asks for something else.
            Verdict::Completed { .. } | Verdict::Unknown { .. } => Acquisition::Mismatch,
        };
        Followed::Step(decide(seen, &self.settings), Instant::now())
    }

    /// Looks at the store for all who wait, until something ends; `None` when a verdict is there to be read.
    async fn lead(
        &mut self,
        waiter: &mut Waiter<'_>,
        claim: &Claim,
        deadline: Instant,
        remaining: &mut Duration,
    ) -> Option<Followed> {
        let mut doubtful = false;
        loop {
            waiter.pause(*remaining, deadline).await;
            if waiter.is_settled() {
                if doubtful {
                    self.engine.withdraw(claim.held(), claim.take_over);
                }
                return None;
            }
            if !self.engine.has_room() && Instant::now() < deadline {
                // A look may become an execution, for which there is no room now.
                continue;
            }
            let (sent, seen) = match self.look(claim, doubtful).await {
                Ok(looked) => looked,
                Err(ended) => {
                    // An earlier look may have claimed the key without anybody knowing.
                    if doubtful {
                        self.engine.withdraw(claim.held(), claim.take_over);
                    }
                    return Some(ended);
                }
            };
            doubtful = match &seen {
                Ok(_) => false,
                // An earlier look is in doubt until one is answered.
                Err(unclaimed) => doubtful || unclaimed.doubtful,
            };
            match seen {
                Ok(Acquisition::InFlight { remaining: left }) => *remaining = left,
                Ok(Acquisition::Completed(outcome)) => {
                    waiter.publish(Verdict::Completed {
                        fingerprint: claim.fingerprint,
                        outcome,
                    });
                    return None;
                }
                Ok(Acquisition::Unknown)
                    if !matches!(self.settings.on_crash, OnCrash::Recover(_)) =>
                {
                    waiter.publish(Verdict::Unknown {
                        fingerprint: claim.fingerprint,
                    });
                    return None;
                }
                Ok(seen) => return Some(Followed::Step(decide(seen, &self.settings), sent)),
                Err(Unclaimed { error, .. }) if Instant::now() >= deadline => {
                    return Some(Followed::StoreFailed(Unclaimed { error, doubtful }));
                }
                // The store may be back before the deadline; until then nothing is known.
                Err(Unclaimed { error, .. }) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a look failed");
                }
            }
            if Instant::now() >= deadline {
                return Some(conflict(*remaining));
            }
        }
    }

    /// One acquire with this request's own token: it sees the outcome, or gets the key if that became free.
    async fn look(
        &mut self,
        claim: &Claim,
        doubtful: bool,
    ) -> Result<(Instant, Result<Acquisition, Unclaimed>), Followed> {
        let Some(admission) = self.engine.running().admit() else {
            return if doubtful {
                Err(Followed::ShutDown)
            } else {
                self.peek(claim).await
            };
        };
        self.attendance.commit();
        let sent = Instant::now();
        let seen = self.engine.ops().acquire(claim, sent).await;
        match &seen {
            Ok(Acquisition::Acquired { .. }) => self.admission = Some(admission),
            // The key may be ours all the same, its reply lost. Only a further look can tell, so this future
            // goes on, client or not: a claim that nobody knows of would block its key.
            Err(unclaimed) if doubtful || unclaimed.doubtful => {}
            _ => {
                self.attendance.uncommit();
                if self.attendance.client_left() {
                    return Err(Followed::ClientLeft);
                }
            }
        }
        Ok((sent, seen))
    }

    /// A look that claims nothing, while the engine shuts down: what runs may still end, and is waited for, but
    /// nothing new is executed.
    async fn peek(
        &self,
        claim: &Claim,
    ) -> Result<(Instant, Result<Acquisition, Unclaimed>), Followed> {
        if self.engine.running().is_closed() {
            return Err(Followed::ShutDown);
        }
        let sent = Instant::now();
        let record = match self.engine.ops().get(&claim.key).await {
            Ok(Some(record)) => record,
            Ok(None) => return Err(Followed::ShutDown),
            Err(error) => {
                // It asked for nothing that could have been applied.
                let doubtful = false;
                return Ok((sent, Err(Unclaimed { error, doubtful })));
            }
        };
        let seen = match record.state {
            _ if record.fingerprint != claim.fingerprint => Acquisition::Mismatch,
            RecordState::Completed(outcome) => Acquisition::Completed(outcome),
            RecordState::InFlight { remaining } if !remaining.is_zero() => {
                Acquisition::InFlight { remaining }
            }
            RecordState::InFlight { .. } if matches!(self.settings.on_crash, OnCrash::Refuse) => {
                Acquisition::Unknown
            }
            RecordState::InFlight { .. } => return Err(Followed::ShutDown),
        };
        Ok((sent, Ok(seen)))
    }
}

fn conflict(remaining: Duration) -> Followed {
    Followed::Step(Step::Answer(Answer::Conflict { remaining }), Instant::now())
}
