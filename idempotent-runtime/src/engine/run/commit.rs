//! The last write of an execution: its outcome is stored, or its key is released or abandoned.
//!
//! The execution makes these writes itself, never from a destructor, and repeats them until the store acknowledges one or
//! the retry budget is used up; then the claim stays. Three others end a lease too, each for a key whose execution cannot
//! do it: a shutdown at its deadline (`shutdown.rs`), the withdrawal of a claim in doubt (`core/doubt.rs`) and an operator
//! (`admin.rs`).

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{Instrument, instrument::WithSubscriber};

use super::{
    ending::Kept,
    state::{Answered, Run, RunResult},
};
use crate::{
    backoff::Backoff,
    engine::wait::Verdict,
    policy::OnCrash,
    problem::ProblemCode,
    response::Binding,
    store::{Held, Outcome, StoreError, StoreErrorKind, Write},
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
    pub(super) async fn keep<B>(mut self: Box<Self>, kept: Kept<B>) -> RunResult<B> {
        let Kept {
            outcome,
            own,
            written,
        } = kept;
        match self.commit(&outcome, written).await {
            CommitOutcome::Applied => Ok(own),
            CommitOutcome::Fenced => Err(self.fenced_out()),
            CommitOutcome::Missing => Ok(self.refuse(ProblemCode::OutcomeUnknown)),
            CommitOutcome::Unacknowledged => {
                let answer = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                self.persist(outcome);
                answer
            }
        }
    }

    /// Stores the outcome, within the retry budget, and publishes it to those that wait.
    ///
    /// A response that is larger than the store takes becomes a tombstone, and so does one that the store keeps refusing or
    /// has no room for: recording "executed" is safer than recording nothing.
    pub(crate) async fn commit(
        &mut self,
        outcome: &Outcome,
        written: Option<Result<Write, StoreError>>,
    ) -> CommitOutcome {
        let write = LastWrite::Complete(outcome);
        let (mut outcome, mut written) = (outcome, self.write(write, written).await);
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
                Box::pin(self.write(LastWrite::Complete(outcome), None)).await
            } else {
                // The retry budget is used up: one attempt only.
                Box::pin(self.send(LastWrite::Complete(outcome))).await
            };
        }
        let key = self.lease.held().key;
        match written {
            Ok(Write::Applied) => {
                self.completed(outcome);
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

    /// The outcome is stored: publishes it to those that wait.
    pub(super) fn completed(&mut self, outcome: &Outcome) {
        let Binding { key, fingerprint } = self.lease.binding();
        self.doubt.end();
        if let Outcome::Response(response) = outcome {
            self.plan.metrics.stored(response.as_bytes().len());
        }
        // First, so that a waiter that is woken finds the record and not this execution.
        self.admission.let_go();
        self.core.wait_queues.publish(&key, || Verdict::Completed {
            fingerprint,
            outcome: outcome.clone(),
        });
    }

    /// The record is another execution's, or gone: nothing is owned any more, and what was executed is never released.
    pub(super) fn end_without_record(&mut self) {
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
    pub(super) async fn release<B>(self: Box<Self>, own: Answered<B>) -> RunResult<B> {
        if self.releases_by_abandoning() {
            return self.abandon(own).await;
        }
        self.end_without_outcome(LastWrite::Release, own).await
    }

    /// Whether the record has to stay when the key is free: a copy of the acquire may come after it, or a next attempt needs
    /// the steps.
    pub(super) fn releases_by_abandoning(&self) -> bool {
        self.doubt.must_abandon() || self.has_steps_to_keep()
    }

    /// Whether a next attempt needs the steps of this one.
    fn has_steps_to_keep(&self) -> bool {
        let (steps, _) = self.lease.steps();
        steps.any_begun() && !matches!(self.settings().on_crash, OnCrash::Refuse)
    }

    /// Abandons the key, because what was executed is unknown: the claim stays, its lease ends now.
    pub(super) async fn abandon<B>(self: Box<Self>, own: Answered<B>) -> RunResult<B> {
        self.end_without_outcome(LastWrite::Abandon, own).await
    }

    /// Ends the lease without an outcome, notifies those that wait, and answers with this run's own answer, also if the
    /// write was fenced or found nothing: what this request did or did not do does not depend on who has the key now. A
    /// write that the store does not acknowledge goes on in the background.
    async fn end_without_outcome<B>(
        mut self: Box<Self>,
        write: LastWrite<'_>,
        own: Answered<B>,
    ) -> RunResult<B> {
        let key = self.lease.held().key;
        let written = self.write(write, None).await;
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
        Ok(own)
    }

    /// Completes the record, if the store can say at once how that ended.
    pub(super) fn complete_now(&mut self, outcome: &Outcome) -> Option<Result<Write, StoreError>> {
        self.lease.begin_last_write();
        self.core.store.try_complete(&self.last_held(), outcome)
    }

    /// Makes a last write, repeated until it is acknowledged or the retry budget is used up. `first` is what the store has
    /// answered already.
    async fn write(
        &mut self,
        write: LastWrite<'_>,
        first: Option<Result<Write, StoreError>>,
    ) -> Result<Write, StoreError> {
        self.lease.begin_last_write();
        let first = match first {
            Some(written) => written,
            None => self.send(write).await,
        };
        match first {
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
        let held = self.last_held();
        let store = &self.core.store;
        match write {
            LastWrite::Complete(outcome) => store.complete(&held, outcome).await,
            LastWrite::Release => store.release(&held.key, &held.token).await,
            LastWrite::Abandon => store.abandon(&held.key, &held.token).await,
        }
    }

    /// The lease as it is completed: with the ttl of the outcome.
    pub(super) fn last_held(&self) -> Held {
        let mut held = *self.lease.held();
        held.ttl = self.ttl.unwrap_or(held.ttl);
        held
    }

    /// Goes on storing an outcome whose client has already heard that it is unknown. A late completion is as good as a
    /// timely one. The time for that counts from now, the end of the execution: an overdue one has as much of it as any
    /// other.
    pub(super) fn persist(mut self: Box<Self>, outcome: Outcome) {
        let detached = self.detach().detach(&self.core.room);
        let runtime = self.core.runtime.clone();
        let task = async move {
            let _detached = detached;
            let give_up = Instant::now() + PERSISTED_FOR;
            let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_PAUSE);
            while Instant::now() < give_up {
                sleep(backoff.pause_at_most()).await;
                if self.commit(&outcome, None).await != CommitOutcome::Unacknowledged {
                    return;
                }
            }
            let key = self.lease.held().key;
            tracing::error!(%key, after = ?PERSISTED_FOR, "the store took no outcome for so long: it stays unknown");
        };
        // With the span and the subscriber of the request, which the log lines of a late failure need.
        runtime.spawn(task.in_current_span().with_current_subscriber());
    }
}

impl LastWrite<'_> {
    /// Whether a repetition may succeed. A store without room for an outcome may have some when records expire; a server
    /// may refuse it for a moment only, as while passwords change.
    fn may_succeed_after(&self, error: &StoreError) -> bool {
        match error.kind() {
            StoreErrorKind::Unavailable => true,
            StoreErrorKind::Full | StoreErrorKind::Refused => matches!(self, Self::Complete(_)),
            // The last two are errors of lists only.
            StoreErrorKind::TooLarge
            | StoreErrorKind::Corrupt
            | StoreErrorKind::InvalidCursor
            | StoreErrorKind::NotInspectable => false,
        }
    }
}
