//! Following another execution until its outcome is known, or the key falls to this request.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    decide::{Next, next},
    state::Exchange,
};
use crate::{
    engine::{
        core::{store_client::AcquireError, withdraw::withdraw},
        reply::Answer,
        wait::{Turn, Verdict, Waiter},
    },
    policy::OnCrash,
    store::{Acquisition, Claim, RecordState},
};

/// How following ended.
#[derive(Debug)]
pub(super) enum FollowOutcome {
    /// The next step is known. An `Execute` was acquired by an acquire that was sent at that instant.
    Proceed(Next, Instant),
    /// The queue of the key or of the process is full.
    Full,
    /// The engine shut down.
    ShutDown,
    /// The deadline passed, and the last poll of the store had failed.
    StoreFailed(AcquireError),
    /// The client has gone.
    ClientLeft,
}

impl Exchange {
    /// Waits for the outcome of the execution in flight, at most `wait_timeout`.
    pub(super) async fn follow(&mut self, claim: &Claim, remaining: Duration) -> FollowOutcome {
        let deadline = Instant::now() + self.settings.wait_timeout;
        // A waiting request executes nothing: a shutdown does not wait for it, but ends its waiting.
        self.admission = None;
        let core = std::sync::Arc::clone(&self.core);
        let Some(mut waiter) = core.wait_queues.join(claim.key) else {
            return FollowOutcome::Full;
        };
        // After joining, so that a shutdown either finds this waiter or was seen here.
        if core.in_flight.is_closed() {
            return FollowOutcome::ShutDown;
        }
        let mut remaining = remaining;
        loop {
            let ended = match waiter.turn(deadline).await {
                None => Some(conflict(remaining)),
                Some(Turn::Verdict(verdict)) => Some(self.conclude(verdict, claim)),
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

    /// What follows from a published verdict for this request.
    fn conclude(&self, verdict: Verdict, claim: &Claim) -> FollowOutcome {
        let seen = match verdict {
            Verdict::ShutDown => return FollowOutcome::ShutDown,
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
        FollowOutcome::Proceed(next(seen, &self.settings), Instant::now())
    }

    /// Polls the store for all that wait, until one of them has an answer; `None` when there is a verdict to be read.
    async fn lead(
        &mut self,
        waiter: &mut Waiter<'_>,
        claim: &Claim,
        deadline: Instant,
        remaining: &mut Duration,
    ) -> Option<FollowOutcome> {
        let mut in_doubt = false;
        loop {
            waiter.pause(*remaining, deadline).await;
            if waiter.has_verdict() {
                if in_doubt {
                    withdraw(&self.core, claim.held(), claim.take_over);
                }
                return None;
            }
            if !self.core.has_room() && Instant::now() < deadline {
                // A poll may become an execution, for which there is no room now.
                continue;
            }
            let (sent, seen) = match self.poll_store(claim, in_doubt).await {
                Ok(polled) => polled,
                Err(ended) => {
                    // An earlier poll may have claimed the key, and its reply was lost.
                    if in_doubt {
                        withdraw(&self.core, claim.held(), claim.take_over);
                    }
                    return Some(ended);
                }
            };
            in_doubt = match &seen {
                Ok(_) => false,
                // An earlier poll stays in doubt until one is answered.
                Err(unclaimed) => in_doubt || unclaimed.in_doubt,
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
                Ok(seen) => return Some(FollowOutcome::Proceed(next(seen, &self.settings), sent)),
                Err(AcquireError { error, .. }) if Instant::now() >= deadline => {
                    return Some(FollowOutcome::StoreFailed(AcquireError { error, in_doubt }));
                }
                // The store may be back before the deadline; until then nothing is known.
                Err(AcquireError { error, .. }) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a poll failed");
                }
            }
            if Instant::now() >= deadline {
                return Some(conflict(*remaining));
            }
        }
    }

    /// One acquire with this request's own token: it returns the outcome, or claims the key if that has become free.
    async fn poll_store(
        &mut self,
        claim: &Claim,
        in_doubt: bool,
    ) -> Result<(Instant, Result<Acquisition, AcquireError>), FollowOutcome> {
        let Some(admission) = self.core.in_flight.admit() else {
            return if in_doubt {
                Err(FollowOutcome::ShutDown)
            } else {
                self.read_store(claim).await
            };
        };
        self.detach.must_finish();
        let sent = Instant::now();
        let seen = self.core.store.acquire(claim, sent).await;
        match &seen {
            Ok(Acquisition::Acquired { .. }) => self.admission = Some(admission),
            // The key may be ours although the reply was lost. Only a further poll can tell, so this future goes on,
            // with or without its client: a claim that no request knows of would block its key.
            Err(unclaimed) if in_doubt || unclaimed.in_doubt => {}
            _ => {
                self.detach.may_drop();
                if self.detach.client_left() {
                    return Err(FollowOutcome::ClientLeft);
                }
            }
        }
        Ok((sent, seen))
    }

    /// A poll that claims nothing, while the engine shuts down: executions in flight may still end, and are waited for, but
    /// nothing new is executed.
    async fn read_store(
        &self,
        claim: &Claim,
    ) -> Result<(Instant, Result<Acquisition, AcquireError>), FollowOutcome> {
        if self.core.in_flight.is_closed() {
            return Err(FollowOutcome::ShutDown);
        }
        let sent = Instant::now();
        let record = match self.core.store.get(&claim.key).await {
            Ok(Some(record)) => record,
            Ok(None) => return Err(FollowOutcome::ShutDown),
            Err(error) => {
                // A read changes nothing, so nothing is in doubt.
                let in_doubt = false;
                return Ok((sent, Err(AcquireError { error, in_doubt })));
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
            RecordState::InFlight { .. } => return Err(FollowOutcome::ShutDown),
        };
        Ok((sent, Ok(seen)))
    }
}

fn conflict(remaining: Duration) -> FollowOutcome {
    FollowOutcome::Proceed(Next::Answer(Answer::Conflict { remaining }), Instant::now())
}
