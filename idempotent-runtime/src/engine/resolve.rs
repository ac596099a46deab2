//! The rarer ways to an answer: a crashed execution, a fenced one, a store that fails.

use std::time::Duration;

use http::Response;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, instrument::WithSubscriber};

use super::{
    Idempotency, Reply,
    answer::conflict,
    body::ResponseBody,
    boundary::{Ran, Work},
    builder::OnStoreError,
    decide::{Step, decide},
    execute::{FencedOut, Run},
    execution::Execution,
    ops::{Unclaimed, jittered},
    visit::{Arrival, Visit},
};
use crate::{
    observe::Ended,
    policy::{OnCrash, Settings},
    problem::ProblemCode,
    store::{Acquisition, Claim, Held, RecordState, StoreErrorKind, Token, Write},
};

/// How long a store may be away before a claim of unknown fate is left to its lease.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(15 * 60);
/// At most so many claims of unknown fate are withdrawn at the same time.
const WITHDRAWALS: usize = 256;

impl Visit {
    /// An execution vanished: takes the key over, so that one retry at a time asks, and asks.
    pub(crate) async fn recover<W: Work>(
        &mut self,
        mut claim: Claim,
        arrival: Box<Arrival>,
        work: W,
    ) -> (Ended, Reply<W::Body>) {
        let OnCrash::Recover(recover) = self.settings.on_crash else {
            return self.engine.refused(&ProblemCode::OutcomeUnknown.into());
        };
        if self.admission.is_none() {
            // This request waited, and gave its admission up for that time.
            self.admission = self.engine.running().admit();
        }
        if self.admission.is_none() {
            return self.engine.refused(&ProblemCode::Overloaded.into());
        }
        claim.token = Token::random();
        claim.take_over = true;
        self.attendance.commit();
        let sent = Instant::now();
        let attempt = match self.engine.ops().acquire(&claim, sent).await {
            Ok(Acquisition::Acquired { attempt }) => attempt,
            Ok(seen) => {
                self.attendance.uncommit();
                return self.overtaken(seen, &claim);
            }
            Err(error) => return self.unclaimed(&error, &claim),
        };
        let (key, request) = arrival.into_parts();
        let run = self.run(attempt, sent, &claim, key);
        if self.engine.running().is_closed() {
            return self.declined(run, claim).await;
        }
        match run.recover(recover, request.clone()).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(FencedOut)) => self.winner(claim).await,
            Err(run) => self.execute(run, claim, request, work).await,
        }
    }

    /// The key was claimed too late to start anything.
    pub(crate) async fn declined<B>(&self, run: Box<Run>, claim: Claim) -> (Ended, Reply<B>) {
        match run.decline().await {
            Ok(answered) => answered,
            Err(FencedOut) => self.winner(claim).await,
        }
    }

    /// Another retry was faster to ask: its outcome, or a conflict while it asks.
    fn overtaken<B>(&self, seen: Acquisition, claim: &Claim) -> (Ended, Reply<B>) {
        match decide(
            seen,
            &Settings {
                wait: false,
                ..self.settings.clone()
            },
        ) {
            Step::Answer(answer) => self.engine.answered(answer, false, &claim.binding()),
            _ => self.engine.refused(&ProblemCode::OutcomeUnknown.into()),
        }
    }

    /// Fenced out: the answer is the winner's outcome, never our own.
    pub(crate) async fn winner<B>(&self, claim: Claim) -> (Ended, Reply<B>) {
        let deadline = Instant::now() + self.settings.wait_timeout;
        // Nothing is owned any more. The winner is watched, not followed: this request must never execute
        // again, whatever becomes of the winner.
        self.attendance.uncommit();
        let mut pause = Duration::from_millis(10);
        loop {
            let record = match self.engine.ops().get(&claim.key).await {
                Ok(record) => record,
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    sleep(jittered(pause)).await;
                    pause = (pause * 2).min(Duration::from_millis(500));
                    continue;
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the winner's outcome cannot be read"
                    );
                    return self.engine.refused(&ProblemCode::OutcomeUnknown.into());
                }
            };
            let record = record.filter(|record| record.fingerprint == claim.fingerprint);
            let remaining = match record.map(|record| record.state) {
                Some(RecordState::Completed(outcome)) => {
                    return self.engine.answered(outcome.into(), true, &claim.binding());
                }
                Some(RecordState::InFlight { remaining }) if !remaining.is_zero() => remaining,
                _ => return self.engine.refused(&ProblemCode::OutcomeUnknown.into()),
            };
            if Instant::now() >= deadline || self.attendance.client_left() {
                return self.engine.refused(&conflict(remaining));
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// The store could not say anything about the key: the handler does not start, unless somebody asked for that.
    pub(crate) async fn store_failed<W: Work>(
        &mut self,
        unclaimed: &Unclaimed,
        claim: Claim,
        arrival: Box<Arrival>,
        work: W,
    ) -> (Ended, Reply<W::Body>) {
        let refused = self.unclaimed(unclaimed, &claim);
        let kind = unclaimed.error.kind();
        let unreachable = !matches!(kind, StoreErrorKind::Full | StoreErrorKind::Corrupt);
        if unreachable && self.engine.on_store_error() == OnStoreError::Execute {
            tracing::warn!(key = %claim.key, "executing WITHOUT idempotency, as `on_store_error` says");
            let reply = self.unprotected(&claim, arrival, work).await;
            return (Ended::Unprotected, reply);
        }
        refused
    }

    /// The store did not say that the key is ours. Where it said before that somebody else has the key, or had it
    /// and vanished, this is the end, whatever `on_store_error` says: the effect may have happened.
    pub(crate) fn unclaimed<B>(&self, unclaimed: &Unclaimed, claim: &Claim) -> (Ended, Reply<B>) {
        let Unclaimed { error, doubtful } = unclaimed;
        tracing::error!(error = error as &dyn std::error::Error, key = %claim.key, "the key could not be claimed");
        if *doubtful {
            self.engine.withdraw(claim.held(), claim.take_over);
        }
        let code = match error.kind() {
            StoreErrorKind::Full => ProblemCode::Overloaded,
            StoreErrorKind::Corrupt => ProblemCode::RecordUnreadable,
            _ => ProblemCode::StoreUnavailable,
        };
        self.engine.refused(&code.into())
    }

    /// Runs the handler under no lease.
    async fn unprotected<W: Work>(
        &mut self,
        claim: &Claim,
        arrival: Box<Arrival>,
        work: W,
    ) -> Response<ResponseBody<W::Body>> {
        let (key, mut request) = arrival.into_parts();
        let execution = Execution::new(self.engine.clone(), key, claim.key, 1, Instant::now());
        request.extensions_mut().insert(execution);
        match work.start(request).await {
            Ran::Answered(response) | Ran::Rejected(response) => {
                self.engine.first_hand(response).map(ResponseBody::live)
            }
            Ran::Failed => self.engine.refused(&ProblemCode::OutcomeUnknown.into()).1,
        }
    }
}

impl Idempotency {
    /// Takes back a claim whose acquire was never acknowledged.
    ///
    /// It may have been applied all the same, and would then block its key until it expires although nothing
    /// was executed: the handler starts only after an acknowledged acquire, so nobody else uses this token, and
    /// giving it back cannot undo anything. A claim that may have taken a crashed execution over is abandoned
    /// rather than released: the record, and with it the memory of the crash and the attempts so far, stays.
    pub(crate) fn withdraw(&self, held: Held, took_over: bool) {
        let Some(guard) = self.withdrawals().enter_below(WITHDRAWALS) else {
            tracing::warn!(key = %held.key, "a claim of unknown fate is left to its lease");
            return;
        };
        let engine = self.clone();
        let task = async move {
            let _counted = guard;
            let started = Instant::now();
            let mut pause = Duration::from_millis(100);
            while started.elapsed() < WITHDRAWN_WITHIN {
                let written = if took_over {
                    engine.ops().abandon(&held.key, &held.token).await
                } else {
                    engine.ops().release(&held.key, &held.token).await
                };
                match written {
                    Ok(Write::Applied) => return engine.wait_room().poke(&held.key),
                    // Not there: a delayed acquire may still arrive, but hardly after its own lease.
                    Ok(_) if started.elapsed() >= held.lease => return,
                    Ok(_) | Err(_) => sleep(jittered(pause)).await,
                }
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        };
        tokio::spawn(task.in_current_span().with_current_subscriber());
    }
}
