//! The end of an execution whose outcome is committed in the handler's transaction.
//!
//! 1. The body of the response is collected first, while the transaction is open: it may read from it. A larger one than
//!    is stored commits the tombstone with the rows, and passes on after that.
//! 2. A response below 400 commits. Any other rolls back and is an outcome like that of any route, and so does one that
//!    releases the key or that the handler wants rolled back.
//! 3. A transaction that could not be committed, or that may have been committed without the record, is answered with
//!    `transaction_failed`, which is stored: nothing is ever released behind which rows may stand.
//! 4. A COMMIT without an answer is decided at once where the server can be asked, and else in the background.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, response::Parts};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument, instrument::WithSubscriber};

use super::{
    cacheable::{self, Decision},
    ending::Kept,
    length::Announced,
    recorder,
    state::{Answered, Run, RunResult},
};
use crate::{
    backoff::Backoff,
    catch_unwind::{Panicked, catching, drop_catching},
    engine::{
        body::{ResponseBody, collect::Collected},
        core::slot::Closed,
        handler::{BoxError, HandlerResult},
        reply::{first_hand, refuse},
        wait::Verdict,
    },
    observe::{Stopwatch, StoreOperation},
    problem::{Problem, ProblemCode},
    store::{
        Outcome, StoreErrorKind, Write,
        transaction::{CommitResult, GiveUp, InDoubt, OpenTransaction, Resolved},
    },
};

/// The longest pause before a COMMIT in doubt is asked about again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// For how long a COMMIT in doubt is asked about.
const DECIDED_WITHIN: Duration = Duration::from_secs(15 * 60);

/// The response's body broke off, or is not what its head says.
struct Lost;

impl Run {
    /// Ends the execution: commits the handler's transaction with the outcome, or rolls it back first.
    pub(super) async fn end_in_transaction<B>(
        mut self: Box<Self>,
        ended: Result<HandlerResult<B>, Panicked>,
        since: Stopwatch,
    ) -> RunResult<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let response = match ended {
            Ok(HandlerResult::Returned(response)) => response,
            ended => {
                let kept = self.roll_back_to_release().await;
                let ending = self.ending_outside(ended, since);
                return match kept {
                    // The handler's panic did not end what it has given away.
                    Err(misused) => self.keep(misused).await,
                    Ok(()) => Box::pin(self.end(ending)).await,
                };
            }
        };
        self.plan.metrics.executed(since);
        let response = first_hand(&self.core, response);
        let decision = cacheable::decide(self.settings(), response.status(), response.extensions());
        if let Decision::StoreFor(ttl) = decision {
            self.keep_for(ttl);
        }
        if decision == Decision::Abandon {
            if let Err(misused) = self.roll_back().await {
                return self.keep(misused).await;
            }
            let own = self.unknown(response);
            return self.abandon(own).await;
        }
        let status = response.status();
        let succeeded = !status.is_client_error() && !status.is_server_error();
        let gathered = catching(self.gather(response)).await;
        let gathered = gathered.unwrap_or_else(|Panicked| {
            tracing::error!("the response body panicked");
            Err(Lost)
        });
        let Ok(kept) = gathered else {
            let rolled_back = self.roll_back().await;
            let failed =
                self.failed("the body of its response broke off, so nothing was committed");
            return self.keep(rolled_back.err().unwrap_or(failed)).await;
        };
        let wanted = self
            .lease
            .transaction()
            .is_some_and(|slot| !slot.is_rollback_only());
        if succeeded && wanted && decision != Decision::Release {
            return self.commit_transaction(kept).await;
        }
        let releases = decision == Decision::Release;
        let rolled_back = if releases {
            self.roll_back_to_release().await
        } else {
            self.roll_back().await
        };
        match rolled_back {
            Err(misused) => self.keep(misused).await,
            Ok(()) if releases => self.release(kept.own).await,
            Ok(()) => self.keep(kept).await,
        }
    }

    /// Rolls the transaction back, and the key may be released. `Err` is the outcome where what the handler wrote may be
    /// committed.
    async fn roll_back_to_release<B>(&mut self) -> Result<(), Kept<B>> {
        match self.close() {
            Closed::Unused => Ok(()),
            Closed::Here(open) | Closed::KeptUnused(open) => open
                .roll_back_to_release()
                .await
                .map_err(|found| self.may_be_committed(found)),
            Closed::Kept => Err(self.kept_by_the_handler()),
        }
    }

    /// Rolls the transaction back, if one has begun. `Err` is the outcome where the handler has not given it back.
    async fn roll_back<B>(&mut self) -> Result<(), Kept<B>> {
        match self.close() {
            Closed::Unused => Ok(()),
            Closed::Here(open) | Closed::KeptUnused(open) => {
                open.roll_back().await;
                Ok(())
            }
            Closed::Kept => Err(self.kept_by_the_handler()),
        }
    }

    fn close(&self) -> Closed {
        let slot = self.lease.transaction();
        slot.map_or(Closed::Unused, |slot| slot.close())
    }

    fn lacks_messages(&self) -> bool {
        let slot = self.lease.transaction();
        slot.is_some_and(|slot| slot.lacks_messages())
    }

    /// The transaction that is to be committed. `Err` is the outcome where it may not be, or is not there.
    async fn take_whole<B>(&mut self) -> Result<Box<dyn OpenTransaction>, Kept<B>> {
        let (open, found) = match self.close() {
            Closed::Here(open) if !self.lacks_messages() => return Ok(open),
            Closed::Here(open) => (
                open,
                "a message could not be put into the outbox, or was cut off, so nothing was committed",
            ),
            Closed::KeptUnused(open) => (
                open,
                "the handler has kept its transaction beyond its own end without using it, so nothing was committed",
            ),
            Closed::Kept => return Err(self.kept_by_the_handler()),
            Closed::Unused => {
                return Err(self.failed(
                    "the handler did not use its transaction, and what it did is not known: take `Transaction<…>` as an \
                     argument and write by it",
                ));
            }
        };
        open.roll_back().await;
        Err(self.failed(found))
    }

    /// Commits outcome and rows.
    async fn commit_transaction<B>(mut self: Box<Self>, mut kept: Kept<B>) -> RunResult<B> {
        let open = match self.take_whole().await {
            Ok(open) => open,
            Err(misused) => return self.keep(misused).await,
        };
        let mut result = self.send_commit(open, &kept.outcome).await;
        if let CommitResult::TooLarge(open) = result {
            tracing::error!(
                "the store does not take the response: retries get `response_not_stored`"
            );
            kept.outcome = Outcome::Tombstone;
            result = self.send_commit(open, &kept.outcome).await;
        }
        match result {
            CommitResult::TooLarge(open) => {
                open.roll_back().await;
                self.rolled_back("the store does not take a tombstone".into(), false)
                    .await
            }
            CommitResult::Committed => {
                self.completed(&kept.outcome);
                Ok(kept.own)
            }
            CommitResult::Fenced => {
                tracing::warn!(key = %self.lease.held().key, "fenced out: the transaction was rolled back, and the winner's outcome is the answer");
                self.end_without_record();
                Err(self.fenced_out())
            }
            CommitResult::Missing => {
                tracing::error!(key = %self.lease.held().key, "the record vanished from the store while it was in flight: the transaction was rolled back");
                self.end_without_record();
                Ok(self.refuse(ProblemCode::OutcomeUnknown))
            }
            CommitResult::RolledBack { source, retry } => self.rolled_back(source, retry).await,
            CommitResult::NotOurs { found } => {
                let misused = self.may_be_committed(found);
                self.keep(misused).await
            }
            CommitResult::InDoubt(doubt) => self.decide(doubt, kept).await,
        }
    }

    /// Sends completion and COMMIT, when no renewal is under way any more.
    async fn send_commit(
        &mut self,
        open: Box<dyn OpenTransaction>,
        outcome: &Outcome,
    ) -> CommitResult {
        self.lease.begin_last_write();
        self.lease.stop_renewals().await;
        let since = Stopwatch::start();
        let result = open.commit(self.last_held(), outcome.clone()).await;
        let failed = match &result {
            CommitResult::Committed | CommitResult::Fenced | CommitResult::Missing => None,
            CommitResult::InDoubt(_) => Some(StoreErrorKind::Unavailable),
            CommitResult::TooLarge(_) => Some(StoreErrorKind::TooLarge),
            CommitResult::RolledBack { .. } | CommitResult::NotOurs { .. } => {
                Some(StoreErrorKind::Refused)
            }
        };
        let metrics = self.core.store.metrics();
        metrics.operation(StoreOperation::Commit, failed, since);
        if matches!(result, CommitResult::Fenced) {
            metrics.wrote(StoreOperation::Commit, Write::Fenced);
        }
        result
    }

    /// The database refused to commit, and nothing was.
    async fn rolled_back<B>(self: Box<Self>, source: BoxError, retry: bool) -> RunResult<B> {
        if retry {
            tracing::warn!(
                error = &*source as &dyn std::error::Error,
                "the transaction was rolled back: a retry executes again"
            );
            let own = self.refuse_rolled_back();
            return self.release(own).await;
        }
        tracing::error!(
            error = &*source as &dyn std::error::Error,
            "the transaction was rolled back: nothing was committed"
        );
        let failed = self.failed(
            "its database transaction could not be committed, because a statement of it or a check at its end failed, so \
             nothing was committed",
        );
        self.keep(failed).await
    }

    /// Nothing was committed, and the same request may succeed.
    fn refuse_rolled_back<B>(&self) -> Answered<B> {
        let problem = Problem::new(ProblemCode::StoreUnavailable).detail(
            "the operation could not be committed and was rolled back, so it had no effect: send the request again with \
             the same key after the time in Retry-After",
        );
        refuse(&self.core, &problem)
    }

    /// Finds out what became of a COMMIT that was not answered.
    async fn decide<B>(
        mut self: Box<Self>,
        mut doubt: Box<dyn InDoubt>,
        kept: Kept<B>,
    ) -> RunResult<B> {
        let by = self.give_up();
        match doubt.resolve(by).await {
            Ok(Resolved::Fenced) => {
                self.end_without_record();
                Err(self.fenced_out())
            }
            Ok(resolved) => {
                let own = match resolved {
                    Resolved::Committed => kept.own,
                    Resolved::RolledBack => self.refuse_rolled_back(),
                    Resolved::Fenced | Resolved::Missing => {
                        self.refuse(ProblemCode::OutcomeUnknown)
                    }
                };
                self.resolved(resolved, by, &kept.outcome);
                Ok(own)
            }
            Err(error) => {
                let key = self.lease.held().key;
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, %key, "whether the transaction was committed is not known yet; the key stays claimed");
                // The duplicates hear what this execution's own client hears.
                self.lease.set_in_doubt();
                let fingerprint = self.lease.fingerprint();
                self.core
                    .wait_queues
                    .publish(&key, || Verdict::Unknown { fingerprint });
                let own = Ok(self.refuse(ProblemCode::OutcomeUnknown));
                self.decide_later(doubt, kept.outcome);
                own
            }
        }
    }

    /// How the record of this execution is given up, should nothing have been committed.
    fn give_up(&self) -> GiveUp {
        if self.releases_by_abandoning() {
            GiveUp::Abandon
        } else {
            GiveUp::Release
        }
    }

    /// It is known what became of the COMMIT.
    fn resolved(mut self, resolved: Resolved, by: GiveUp, outcome: &Outcome) {
        match resolved {
            Resolved::Committed => self.completed(outcome),
            Resolved::Fenced | Resolved::Missing => self.end_without_record(),
            Resolved::RolledBack => {
                self.admission.let_go();
                let abandoned = by == GiveUp::Abandon;
                if abandoned {
                    // No copy of the acquire can undo this: it finds its own token, lapsed or taken over.
                    self.doubt.end();
                }
                let Self {
                    core, doubt, lease, ..
                } = self;
                doubt.given_up(true, abandoned);
                core.wait_queues.notify(&lease.held().key);
            }
        }
    }

    /// Goes on finding out, after the client was told that the outcome is unknown.
    fn decide_later(self: Box<Self>, mut doubt: Box<dyn InDoubt>, outcome: Outcome) {
        let detached = self.detach().detach(&self.core.room);
        let by = self.give_up();
        let runtime = self.core.runtime.clone();
        let task = async move {
            let _detached = detached;
            let give_up = Instant::now() + DECIDED_WITHIN;
            let mut backoff = Backoff::new(Duration::from_millis(500), LONGEST_PAUSE);
            while Instant::now() < give_up {
                sleep(backoff.pause()).await;
                if let Ok(resolved) = doubt.resolve(by).await {
                    tracing::info!(?resolved, "what became of the transaction is known");
                    self.resolved(resolved, by, &outcome);
                    return;
                }
            }
            let key = self.lease.held().key;
            tracing::error!(%key, after = ?DECIDED_WITHIN, "nobody could say whether the transaction was committed: it stays unknown");
        };
        runtime.spawn(task.in_current_span().with_current_subscriber());
    }

    fn kept_by_the_handler<B>(&self) -> Kept<B> {
        self.may_be_committed("the handler has kept its transaction beyond its own end")
    }

    /// The handler's rows may be committed without the record.
    fn may_be_committed<B>(&self, found: &str) -> Kept<B> {
        tracing::error!(
            "{found}: what the handler wrote may be committed, and the answer is stored as a failure"
        );
        self.stored_problem(&Problem::new(ProblemCode::TransactionFailed).detail(format!(
            "the operation failed: {found}, so that it may have taken effect; this answer is final for this idempotency \
             key: before using a new key, check what took effect"
        )))
    }

    /// Nothing was committed.
    fn failed<B>(&self, found: &str) -> Kept<B> {
        tracing::error!("the operation failed: {found}");
        self.stored_problem(
            &Problem::new(ProblemCode::TransactionFailed).detail(format!(
                "the operation failed: {found}; this answer is final for this idempotency key"
            )),
        )
    }

    /// Reads the body of a response, up to what is stored.
    async fn gather<B>(&self, response: Response<B>) -> Result<Kept<B>, Lost>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let limit = self.settings().max_response;
        let (mut head, body) = response.into_parts();
        let Ok(announced) = Announced::of(&mut head, &body, self.lease.method()) else {
            drop_catching(body);
            return Err(Lost);
        };
        match announced {
            Announced::Nonsense => {
                tracing::error!("the Content-Length of the response is not a length");
                Err(Lost)
            }
            Announced::Exact(size) | Announced::Claimed(size) if size > limit as u64 => {
                let reply = Response::from_parts(head, ResponseBody::live(body));
                Ok(Kept::executed(Outcome::Tombstone, reply))
            }
            announced => self.read(head, body, announced, limit).await,
        }
    }

    async fn read<B>(
        &self,
        head: Parts,
        mut body: B,
        announced: Announced,
        limit: usize,
    ) -> Result<Kept<B>, Lost>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let end_of_life = self.lease.end_of_life();
        let mut pieces: Vec<Frame<Bytes>> = Vec::new();
        let (mut size, mut trailers) = (0, None);
        loop {
            let frame = match timeout_at(end_of_life, body.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    let error: BoxError = error.into();
                    let error = &*error as &dyn std::error::Error;
                    tracing::error!(error, "the response body broke off");
                    return Err(Lost);
                }
                Err(_too_long) => {
                    tracing::error!(
                        "the response body did not end within the execution's max_lifetime"
                    );
                    return Err(Lost);
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    size += data.len();
                    pieces.push(Frame::data(data));
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if size > limit {
                let rest = recorder::rest(&self.core, pieces, body);
                let reply = Response::from_parts(head, ResponseBody::recording(rest));
                return Ok(Kept::executed(Outcome::Tombstone, reply));
            }
        }
        drop_catching(body);
        let collected = Collected {
            bytes: joined(pieces, size),
            trailers: trailers.map(Box::new),
        };
        if !announced.is_kept_by(size) {
            tracing::error!(
                ?announced,
                size,
                "the response body is not as long as its Content-Length"
            );
            return Err(Lost);
        }
        Ok(self.collected(head, collected, announced))
    }
}

/// The bytes of these frames. A single piece is not copied.
fn joined(pieces: Vec<Frame<Bytes>>, size: usize) -> Bytes {
    let mut pieces = pieces
        .into_iter()
        .filter_map(|frame| frame.into_data().ok())
        .filter(|data| !data.is_empty());
    let Some(first) = pieces.next() else {
        return Bytes::new();
    };
    if first.len() == size {
        return first;
    }
    let mut whole = Vec::with_capacity(size);
    whole.extend_from_slice(&first);
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.into()
}
