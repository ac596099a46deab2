//! Answering for an execution that was fenced out.

use tokio::time::{Instant, sleep};

use crate::{
    backoff::Backoff,
    engine::{
        reply::{conflict, executed, refuse, reply},
        run::{Answered, FencedOut, RunResult},
    },
    problem::ProblemCode,
    store::RecordState,
};

/// The answer of an execution: its own, or that of the execution that fenced it out.
pub(super) async fn answer<B>(result: RunResult<B>) -> Answered<B> {
    match result {
        Ok(answered) => answered,
        // This request executed, whatever its answer says of the winner.
        Err(fenced_out) => executed(Box::pin(fenced_out.winner()).await),
    }
}

impl FencedOut {
    /// The answer is the winner's outcome, never our own.
    async fn winner<B>(self) -> Answered<B> {
        let Self { core, plan, lease } = self;
        let (own, detach) = (lease.binding(), lease.detach_state());
        let deadline = Instant::now() + plan.settings.wait_timeout;
        // Nothing is owned any more. The winner is read, not followed: this request must never execute again, whatever
        // becomes of the winner.
        detach.may_drop();
        let mut backoff = Backoff::polling();
        loop {
            if let Some(lease) = core.in_flight.lease(&own.key) {
                // The winner is of this process, whatever its record says by now.
                if Instant::now() >= deadline || detach.client_left() {
                    return refuse(&core, &conflict(lease.remaining()));
                }
                sleep(backoff.pause()).await;
                continue;
            }
            let record = match core.store.get(&own.key).await {
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
                    return refuse(&core, &ProblemCode::OutcomeUnknown.into());
                }
            };
            let record = record.filter(|record| record.fingerprint == own.fingerprint);
            let remaining = match record.map(|record| record.state) {
                Some(RecordState::Completed(outcome)) => {
                    return reply(&core, outcome.into(), true, &own);
                }
                Some(RecordState::InFlight { remaining }) if !remaining.is_zero() => remaining,
                _ => return refuse(&core, &ProblemCode::OutcomeUnknown.into()),
            };
            if Instant::now() >= deadline || detach.client_left() {
                return refuse(&core, &conflict(remaining));
            }
            sleep(backoff.pause()).await;
        }
    }
}
