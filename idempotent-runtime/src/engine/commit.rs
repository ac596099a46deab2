//! The last write of an execution: its outcome stored, or the key given up.
//!
//! Nothing else ends a lease. Each of these writes is made by the running execution itself, never from a
//! destructor, and is repeated until the store acknowledges it or patience ends; then the claim stays.

use std::time::Duration;

use http::response::Parts;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, instrument::WithSubscriber};

use super::{
    Reply,
    execute::{Answered, FencedOut, Run},
    ops::jittered,
    wait::Verdict,
};
use crate::{
    observe::Ended,
    problem::ProblemCode,
    response::{Binding, StoredResponse},
    store::{Outcome, StoreError, StoreErrorKind, Write},
};

/// Between two attempts to store an outcome whose client has its answer already.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How the last write of an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// The outcome is stored and acknowledged.
    Applied,
    /// Another execution owns the key: its outcome is the answer.
    Fenced,
    /// The record is gone, though this execution never gave it up.
    Missing,
    /// The store did not acknowledge. The write may or may not have been applied.
    Unacknowledged,
}

/// The writes that end a lease.
#[derive(Clone, Copy)]
enum LastWrite<'a> {
    Complete(&'a Outcome),
    Release,
    Abandon,
}

impl Run {
    /// Commits the outcome and says what the client gets.
    pub(super) async fn settle<B>(
        mut self: Box<Self>,
        outcome: &Outcome,
        reply: Reply<B>,
    ) -> Answered<B> {
        match self.commit(outcome).await {
            Committed::Applied => Ok((Ended::Executed, reply)),
            Committed::Fenced => Err(FencedOut),
            Committed::Missing => Ok(self.refuse(ProblemCode::OutcomeUnknown)),
            Committed::Unacknowledged => {
                let answer = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                self.persist(outcome.clone());
                answer
            }
        }
    }

    /// What is stored for this response: the response itself, or a tombstone where it exceeds the limits.
    pub(crate) fn outcome(&self, head: &Parts, body: &[u8]) -> Outcome {
        let limits = self.engine.response_limits(&self.settings);
        match StoredResponse::encode(head, body, &limits) {
            Ok(response) => {
                let binding = Binding {
                    key: self.lease.held().key,
                    fingerprint: self.fingerprint,
                };
                Outcome::Response(self.engine.sealer().seal(response, &binding))
            }
            Err(reason) => {
                tracing::warn!(
                    reason = &reason as &dyn std::error::Error,
                    "the response is not kept: retries get `response_not_stored`"
                );
                Outcome::Tombstone
            }
        }
    }

    /// Stores the outcome, trying again within bounds, and tells those who wait.
    ///
    /// A response larger than the store takes becomes a tombstone, and so does one that it went on refusing or had
    /// no room for: the execution is over, and that is more than nothing to know.
    pub(crate) async fn commit(&mut self, outcome: &Outcome) -> Committed {
        let (mut outcome, mut written) = (outcome, self.insist(LastWrite::Complete(outcome)).await);
        if let (Outcome::Response(_), Err(error)) = (outcome, &written)
            && !error.is_transient()
            && error.kind() != StoreErrorKind::Corrupt
        {
            let too_large = error.kind() == StoreErrorKind::TooLarge;
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the store does not take the response: retries get `response_not_stored`"
            );
            outcome = &Outcome::Tombstone;
            written = if too_large {
                Box::pin(self.insist(LastWrite::Complete(outcome))).await
            } else {
                // The client has waited for as long as it should.
                Box::pin(self.send(LastWrite::Complete(outcome))).await
            };
        }
        let key = self.lease.held().key;
        match written {
            Ok(Write::Applied) => {
                let fingerprint = self.fingerprint;
                self.engine
                    .wait_room()
                    .publish(&key, || Verdict::Completed {
                        fingerprint,
                        outcome: outcome.clone(),
                    });
                Committed::Applied
            }
            Ok(Write::Fenced) => {
                tracing::warn!(%key, "fenced out: another execution took the key over and its outcome is the answer");
                Committed::Fenced
            }
            Ok(Write::Missing) => {
                tracing::error!(%key, "the record vanished from the store while it was in flight: the outcome is not stored");
                Committed::Missing
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, %key, "the outcome could not be stored; the key stays claimed");
                Committed::Unacknowledged
            }
        }
    }

    /// Nothing was executed, or the answer asks for the same request again: the key may be used again.
    ///
    /// A record that was taken over stays, so that the numbers of the attempts, which others use as fencing
    /// tokens, never start anew: the next retry executes, or asks, as the route does after a crash.
    pub(super) async fn release<B>(self: Box<Self>, own: Answered<B>) -> Answered<B> {
        if self.took_over {
            return self.abandon(own).await;
        }
        self.give_up(LastWrite::Release, own).await
    }

    /// Nobody knows what was executed: the claim stays, its lease ends now.
    pub(super) async fn abandon<B>(self: Box<Self>, own: Answered<B>) -> Answered<B> {
        self.give_up(LastWrite::Abandon, own).await
    }

    /// Gives the key up without an outcome, tells those who wait, and says what the client gets: this run's own
    /// answer, unless it was fenced out. If the store does not acknowledge it, the claim stays until its lease
    /// lapses.
    async fn give_up<B>(
        mut self: Box<Self>,
        write: LastWrite<'_>,
        own: Answered<B>,
    ) -> Answered<B> {
        let key = self.lease.held().key;
        let written = self.insist(write).await;
        self.engine.wait_room().poke(&key);
        match written {
            Ok(Write::Fenced) => return Err(FencedOut),
            Ok(Write::Applied | Write::Missing) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, %key, "the key could not be given up; it stays claimed until its lease lapses");
                if matches!(write, LastWrite::Release) {
                    // The answer asks for the same request again: it must not find its key blocked.
                    self.engine.withdraw(*self.lease.held(), false);
                }
            }
        }
        own
    }

    /// Sends a last write until it is acknowledged, or patience ends.
    async fn insist(&mut self, write: LastWrite<'_>) -> Result<Write, StoreError> {
        match self.send(write).await {
            Err(error) if write.may_succeed_after(&error) => {
                Box::pin(self.repeat(write, error)).await
            }
            written => written,
        }
    }

    /// Repeats a last write that failed, for three times the store's patience.
    async fn repeat(
        &mut self,
        write: LastWrite<'_>,
        mut error: StoreError,
    ) -> Result<Write, StoreError> {
        let patience = self.engine.ops().patience();
        let give_up = Instant::now() + patience * 3;
        let mut pause = patience / 50;
        while write.may_succeed_after(&error) && Instant::now() + pause < give_up {
            self.lease.keep(sleep(jittered(pause))).await;
            pause = (pause * 2).min(patience / 2);
            error = match self.send(write).await {
                Err(error) => error,
                written => return written,
            };
        }
        Err(error)
    }

    /// Sends a last write once, keeping the lease meanwhile.
    async fn send(&mut self, write: LastWrite<'_>) -> Result<Write, StoreError> {
        let held = *self.lease.held();
        let (lease, ops) = (&mut self.lease, self.engine.ops());
        match write {
            LastWrite::Complete(outcome) => lease.keep(ops.complete(&held, outcome)).await,
            LastWrite::Release => lease.keep(ops.release(&held.key, &held.token)).await,
            LastWrite::Abandon => lease.keep(ops.abandon(&held.key, &held.token)).await,
        }
    }

    /// Goes on storing an outcome whose client has been told that it is unknown, until the execution's lifetime
    /// is over. A late completion is as good as a timely one.
    pub(super) fn persist(mut self: Box<Self>, outcome: Outcome) {
        let counted = self.detached().enter();
        let task = async move {
            let _counted = counted;
            let mut pause = Duration::from_secs(1);
            while Instant::now() < self.lease.end_of_life() {
                self.lease.keep(sleep(jittered(pause))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                if self.commit(&outcome).await != Committed::Unacknowledged {
                    return;
                }
            }
        };
        // With the span and the subscriber of the request, which the log lines of a late failure need.
        tokio::spawn(task.in_current_span().with_current_subscriber());
    }
}

impl LastWrite<'_> {
    /// Whether it is worth repeating. Where there is no room for an outcome, records that expire may make some; a
    /// server that refuses it may do so for a moment, as while passwords change.
    fn may_succeed_after(&self, error: &StoreError) -> bool {
        match error.kind() {
            StoreErrorKind::Unavailable => true,
            StoreErrorKind::Full | StoreErrorKind::Refused => matches!(self, Self::Complete(_)),
            StoreErrorKind::TooLarge | StoreErrorKind::Corrupt => false,
        }
    }
}
