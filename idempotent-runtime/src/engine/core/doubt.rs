//! Doubt about a claim: an acquire that was sent and not answered may be applied at any time, once or more often.
//!
//! A later answer to a repetition does not end the doubt: the first message may still be on its way. It ends when the
//! request completes or abandons under the token. Otherwise the claim is *withdrawn*: the token is given back until no copy
//! of the acquire can arrive any more ([`LONGEST_DELAY`]), also after one withdrawal succeeded, and whatever the request was
//! answered. A replay ends no doubt either: the record may expire before the late message arrives.
//!
//! A token under which a take-over was asked for is abandoned, not released: the record, and with it the memory of the
//! crash and the number of attempts, stays.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{Instrument, instrument::WithSubscriber};

use super::{Core, in_flight::OwnToken};
use crate::{
    backoff::Backoff,
    store::{Claim, Held, LONGEST_DELAY, Write},
};

/// How long a store may be away before a withdrawal is left undone and the key to its lease.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(15 * 60);
/// The longest pause between two withdrawals of the same claim.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause before a withdrawal that the store did not acknowledge is repeated.
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(5);
/// At most so many claims are withdrawn at the same time.
pub(in crate::engine) const WITHDRAWALS: usize = 16_384;
/// At most so many of them are asking the store at the same time.
pub(in crate::engine) const WITHDRAWING: usize = 32;

/// What is not known about the claim of one request.
#[expect(
    clippy::struct_excessive_bools,
    reason = "four facts, each of which may hold alone"
)]
pub(crate) struct Doubt {
    core: Arc<Core>,
    held: Held,
    /// The last acquire that was sent.
    sent: Option<Instant>,
    /// Whether an acquire is on its way: if this request ends now, it is unanswered.
    pending: bool,
    /// Whether an acquire was not answered: a copy of it may still arrive.
    unanswered: bool,
    /// Whether the claim is to be given back.
    open: bool,
    give_back: GiveBack,
    /// Whether an execution started under the token: from there on only its own last write ends the lease.
    started: bool,
    own: Option<OwnToken>,
}

/// How a claim is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GiveBack {
    Release,
    /// A take-over was asked for under the token, or something was executed and panicked.
    Abandon,
}

impl Doubt {
    /// No doubt yet: nothing was sent. `takes_over` says whether the route may take leases over.
    pub(crate) fn new(core: &Arc<Core>, claim: &Claim, takes_over: bool) -> Self {
        Self {
            core: Arc::clone(core),
            held: claim.held(),
            sent: None,
            pending: false,
            unanswered: false,
            open: false,
            give_back: GiveBack::Release,
            started: false,
            own: takes_over.then(|| core.in_flight.own(claim.token)),
        }
    }

    /// An acquire is sent at this instant.
    pub(crate) fn sending(&mut self, claim: &Claim, at: Instant) {
        self.sent = Some(at);
        self.pending = true;
        if claim.take_over.is_some() {
            self.give_back = GiveBack::Abandon;
        }
    }

    /// The call has returned. `unanswered` says whether one of its acquires got no answer.
    pub(crate) fn returned(&mut self, unanswered: bool) {
        self.pending = false;
        if unanswered {
            self.sent = Some(Instant::now());
            self.unanswered = true;
            self.open = true;
        }
    }

    /// The claim was acquired: it is to be given back, unless an execution starts.
    pub(crate) fn acquired(&mut self) {
        self.open = true;
    }

    /// The request completed or abandoned under its token.
    ///
    /// With a ttl below [`LONGEST_DELAY`] the completed record may expire before a late copy of the acquire arrives: then
    /// the withdrawal goes on. It changes nothing while the record is completed.
    pub(crate) fn end(&mut self) {
        self.open = self.unanswered && self.held.ttl < LONGEST_DELAY;
        if self.open {
            self.started = false;
        } else {
            self.unanswered = false;
        }
    }

    /// The outcome replays for this time instead of the route's ttl.
    pub(crate) fn keep_for(&mut self, ttl: Duration) {
        self.held.ttl = ttl;
    }

    /// The completion was fenced, or found no record: nothing is owned any more, and what was executed is never released.
    pub(crate) fn fenced(&mut self) {
        self.give_back = GiveBack::Abandon;
        self.open = self.unanswered;
        self.started = false;
    }

    /// An execution starts: from here on the claim is given back only by what its run decides.
    pub(crate) fn start(&mut self) {
        self.started = true;
    }

    /// Whether the claim has to be abandoned, not released.
    pub(crate) fn must_abandon(&self) -> bool {
        self.give_back == GiveBack::Abandon
    }

    /// The run gave the key up, and the store acknowledged that or not. What was not acknowledged is repeated in the
    /// background, and so is what an acquire in doubt could undo.
    pub(crate) fn given_up(mut self, acknowledged: bool, abandon: bool) {
        if abandon {
            self.give_back = GiveBack::Abandon;
        }
        self.open = self.unanswered || !acknowledged;
        self.started = false;
    }
}

impl Drop for Doubt {
    /// Withdraws what is in doubt. This releases nothing that may have started: an execution sets `started`.
    fn drop(&mut self) {
        if self.started || !(self.open || self.pending) {
            return;
        }
        if self.pending {
            self.sent = Some(Instant::now());
        }
        let Some(runtime) = self.core.runtime.handle() else {
            tracing::warn!(key = %self.held.key, "a claim in doubt is left to its lease: there is no runtime");
            return;
        };
        let Some(counted) = self.core.withdrawals.enter_within(WITHDRAWALS) else {
            tracing::error!(key = %self.held.key, "a claim in doubt is left to its lease: too many are being withdrawn");
            return;
        };
        let (core, own) = (Arc::clone(&self.core), self.own.take());
        let held = self.held;
        let give_back = self.give_back;
        let arrives_until = if self.unanswered || self.pending {
            self.sent.unwrap_or_else(Instant::now) + LONGEST_DELAY
        } else {
            Instant::now()
        };
        let task = async move {
            let _until_the_end = counted;
            withdraw(&core, held, give_back, arrives_until, own).await;
        };
        runtime.spawn(task.in_current_span().with_current_subscriber());
    }
}

/// Gives the token back until no copy of the acquire can arrive any more and the store has answered since.
async fn withdraw(
    core: &Core,
    held: Held,
    give_back: GiveBack,
    arrives_until: Instant,
    mut own: Option<OwnToken>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), LONGEST_PAUSE);
    // A store that is back soon finds the key given back soon.
    let mut retries = Backoff::new(Duration::from_millis(100), LONGEST_RETRY_PAUSE);
    let give_up = arrives_until + GIVEN_UP_AFTER;
    loop {
        // A store that is away for long collects many withdrawals: they take turns, so that they neither crowd out the
        // requests nor keep the store from coming back.
        let Ok(turn) = core.withdrawing.acquire().await else {
            return;
        };
        let sent = Instant::now();
        let written = match give_back {
            GiveBack::Release => core.store.release(&held.key, &held.token).await,
            GiveBack::Abandon => core.store.abandon(&held.key, &held.token).await,
        };
        drop(turn);
        match written {
            Ok(Write::Applied) => {
                if give_back == GiveBack::Abandon {
                    // The take-over was applied and nothing goes on under it. A retry may name the token now, also one of
                    // this process: it need not wait until no copy of the acquire can arrive any more, because a copy
                    // names a lease that is not the record's any more.
                    own = None;
                }
                core.wait_queues.notify(&held.key);
            }
            Ok(Write::Fenced | Write::Missing) => {}
            Err(_) if Instant::now() >= give_up => {
                tracing::error!(key = %held.key, "a claim in doubt is left to its lease: the store does not answer");
                return;
            }
            Err(_) => {
                sleep(retries.pause()).await;
                continue;
            }
        }
        if sent >= arrives_until {
            drop(own);
            return;
        }
        sleep(
            backoff
                .pause()
                .min(arrives_until.saturating_duration_since(Instant::now())),
        )
        .await;
    }
}

impl std::fmt::Debug for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doubt")
            .field("key", &self.held.key)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
