//! The last write of an execution: its outcome is stored, or its key is released or abandoned.
//!
//! The execution makes these writes itself, never from a destructor, and repeats them until the store acknowledges one or
//! the retry budget is used up; then the claim stays. Three others end a lease too, each for a key whose execution cannot
//! do it: a shutdown at its deadline (`shutdown.rs`), the withdrawal of a claim in doubt (`core/doubt.rs`) and an operator
//! (`admin.rs`).

use std::{future::Future, time::Duration};

use http::response::Parts;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, instrument::WithSubscriber};

use super::state::{FencedOut, Run, RunResult};
use crate::{
    backoff::Backoff,
    engine::{reply::Reply, wait::Verdict},
    observe::RequestResult,
    problem::ProblemCode,
    response::{Binding, StoredResponse},
    store::{Outcome, StoreError, StoreErrorKind, Write},
};

/// The longest pause between two attempts to store an outcome whose client already has its answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// For how long an outcome whose client already has its answer is stored late, counted from the end of its execution.
const PERSISTED_FOR: Duration = Duration::from_secs(15 * 60);

/// How the last write of an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    /// The outcome is stored and acknowledged.
    Applied,
    /// Another execution owns the key: its outcome is the answer.
    Fenced,
    /// The record is gone, although this execution neither released nor abandoned it.
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
    /// Commits the outcome and returns what the client gets.
    pub(super) fn keep<B>(
        self: Box<Self>,
        outcome: &Outcome,
        reply: Reply<B>,
    ) -> impl Future<Output = RunResult<B>> {
        self.keep_as(outcome, (RequestResult::Executed, reply))
    }

    /// The same for an answer of the engine's own.
    pub(super) async fn keep_as<B>(
        mut self: Box<Self>,
        outcome: &Outcome,
        own: (RequestResult, Reply<B>),
    ) -> RunResult<B> {
        match self.commit(outcome).await {
            CommitOutcome::Applied => Ok(own),
            CommitOutcome::Fenced => Err(FencedOut),
            CommitOutcome::Missing => Ok(self.refuse(ProblemCode::OutcomeUnknown)),
            CommitOutcome::Unacknowledged => {
                let answer = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                self.persist(outcome.clone());
                answer
            }
        }
    }

    /// What is stored for this response: the response itself, or a tombstone where it exceeds the limits.
    pub(crate) fn outcome(&self, head: &Parts, body: &[u8]) -> Outcome {
        let limits = self.core.response_limits(&self.settings);
        let chosen = self.settings.stored_headers.as_ref();
        let method = self.lease.execution().method();
        match StoredResponse::encode(head, body, &limits, chosen, Some(method)) {
            Ok(response) => {
                let binding = Binding {
                    key: self.lease.held().key,
                    fingerprint: self.lease.fingerprint(),
                };
                Outcome::Response(self.core.sealer.seal(response, &binding))
            }
            Err(reason) => {
                tracing::warn!(
                    reason = &reason as &dyn std::error::Error,
                    "the response is not stored: retries get `response_not_stored`"
                );
                Outcome::Tombstone
            }
        }
    }

    /// Stores the outcome, within the retry budget, and publishes it to those that wait.
    ///
    /// A response that is larger than the store takes becomes a tombstone, and so does one that the store keeps refusing or
    /// has no room for: recording "executed" is safer than recording nothing.
    pub(crate) async fn commit(&mut self, outcome: &Outcome) -> CommitOutcome {
        let (mut outcome, mut written) = (outcome, self.write(LastWrite::Complete(outcome)).await);
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
                Box::pin(self.write(LastWrite::Complete(outcome))).await
            } else {
                // The retry budget is used up: one attempt only.
                Box::pin(self.send(LastWrite::Complete(outcome))).await
            };
        }
        let key = self.lease.held().key;
        match written {
            Ok(Write::Applied) => {
                let fingerprint = self.lease.fingerprint();
                self.doubt.end();
                // First, so that a waiter that is woken finds the record and not this execution.
                self.admission.let_go();
                self.core.wait_queues.publish(&key, || Verdict::Completed {
                    fingerprint,
                    outcome: outcome.clone(),
                });
                CommitOutcome::Applied
            }
            Ok(Write::Fenced) => {
                tracing::warn!(%key, "fenced out: another execution took the key over and its outcome is the answer");
                self.end_without_record();
                CommitOutcome::Fenced
            }
            Ok(Write::Missing) => {
                tracing::error!(%key, "the record vanished from the store while it was in flight: the outcome is not stored");
                self.end_without_record();
                CommitOutcome::Missing
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, %key, "the outcome could not be stored; the key stays claimed");
                // The duplicates hear what this execution's own client hears, at once and later.
                self.lease.set_in_doubt();
                let fingerprint = self.lease.fingerprint();
                self.core
                    .wait_queues
                    .publish(&key, || Verdict::Unknown { fingerprint });
                CommitOutcome::Unacknowledged
            }
        }
    }

    /// The record is another execution's, or gone: nothing is owned any more, and what was executed is never released.
    fn end_without_record(&mut self) {
        let key = self.lease.held().key;
        self.doubt.fenced();
        self.admission.let_go();
        self.core.wait_queues.notify(&key);
    }

    /// Releases the key, because nothing was executed or the response asks for the same request again, and answers with
    /// this run's own answer.
    ///
    /// A record that was taken over stays, so that the attempt numbers, which others use as fencing tokens, do not start
    /// again: the next retry executes, or asks the recovery function, as after a crash.
    pub(super) async fn release<B>(self: Box<Self>, own: RunResult<B>) -> RunResult<B> {
        if self.doubt.must_abandon() {
            return self.abandon(own).await;
        }
        self.end_without_outcome(LastWrite::Release, own).await
    }

    /// Abandons the key, because what was executed is unknown: the claim stays, its lease ends now.
    pub(super) async fn abandon<B>(self: Box<Self>, own: RunResult<B>) -> RunResult<B> {
        self.end_without_outcome(LastWrite::Abandon, own).await
    }

    /// Ends the lease without an outcome, notifies those that wait, and answers with this run's own answer, also if the
    /// write was fenced or found nothing: what this request did or did not do does not depend on who has the key now. A
    /// write that the store does not acknowledge goes on in the background.
    async fn end_without_outcome<B>(
        mut self: Box<Self>,
        write: LastWrite<'_>,
        own: RunResult<B>,
    ) -> RunResult<B> {
        let key = self.lease.held().key;
        let written = self.write(write).await;
        let abandoned = matches!(write, LastWrite::Abandon);
        if let Err(error) = &written {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, %key, "the key could not be released yet; this goes on in the background");
        }
        self.admission.let_go();
        if abandoned && matches!(written, Ok(Write::Applied)) {
            // No copy of the acquire can undo this: it finds its own token, lapsed or taken over.
            self.doubt.end();
        }
        let Self { core, doubt, .. } = *self;
        doubt.given_up(written.is_ok(), abandoned);
        // Last, so that a waiter that is woken may take the lease over.
        core.wait_queues.notify(&key);
        own
    }

    /// Makes a last write, repeated until it is acknowledged or the retry budget is used up.
    async fn write(&mut self, write: LastWrite<'_>) -> Result<Write, StoreError> {
        self.lease.begin_last_write();
        match self.send(write).await {
            Err(error) if write.may_succeed_after(&error) => {
                Box::pin(self.repeat(write, error)).await
            }
            written => written,
        }
    }

    /// Repeats a last write that failed, for three times the store time-out.
    async fn repeat(
        &mut self,
        write: LastWrite<'_>,
        mut error: StoreError,
    ) -> Result<Write, StoreError> {
        let timeout = self.core.store.store_timeout();
        let deadline = Instant::now() + timeout * 3;
        let mut backoff = Backoff::new(timeout / 50, timeout / 2);
        while write.may_succeed_after(&error) && Instant::now() + backoff.peek() < deadline {
            sleep(backoff.pause()).await;
            error = match self.send(write).await {
                Err(error) => error,
                written => return written,
            };
        }
        Err(error)
    }

    /// Sends a last write once.
    async fn send(&mut self, write: LastWrite<'_>) -> Result<Write, StoreError> {
        let mut held = *self.lease.held();
        let store = &self.core.store;
        match write {
            LastWrite::Complete(outcome) => {
                held.ttl = self.ttl.unwrap_or(held.ttl);
                store.complete(&held, outcome).await
            }
            LastWrite::Release => store.release(&held.key, &held.token).await,
            LastWrite::Abandon => store.abandon(&held.key, &held.token).await,
        }
    }

    /// Goes on storing an outcome whose client has already heard that it is unknown. A late completion is as good as a
    /// timely one. The time for that counts from now, the end of the execution: an overdue one has as much of it as any
    /// other.
    pub(super) fn persist(mut self: Box<Self>, outcome: Outcome) {
        let detached = self.detach.detach(&self.core);
        let task = async move {
            let _detached = detached;
            let give_up = Instant::now() + PERSISTED_FOR;
            let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_PAUSE);
            while Instant::now() < give_up {
                sleep(backoff.pause_at_most()).await;
                if self.commit(&outcome).await != CommitOutcome::Unacknowledged {
                    return;
                }
            }
            let key = self.lease.held().key;
            tracing::error!(%key, after = ?PERSISTED_FOR, "the store took no outcome for so long: it stays unknown");
        };
        // With the span and the subscriber of the request, which the log lines of a late failure need.
        tokio::spawn(task.in_current_span().with_current_subscriber());
    }
}

impl LastWrite<'_> {
    /// Whether a repetition may succeed. A store without room for an outcome may have some when records expire; a server
    /// may refuse it for a moment only, as while passwords change.
    fn may_succeed_after(&self, error: &StoreError) -> bool {
        match error.kind() {
            StoreErrorKind::Unavailable => true,
            StoreErrorKind::Full | StoreErrorKind::Refused => matches!(self, Self::Complete(_)),
            StoreErrorKind::TooLarge | StoreErrorKind::Corrupt => false,
        }
    }
}
