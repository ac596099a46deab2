//! [`Relay`]: delivers the messages of the outbox in the background.
//!
//! 1. It claims no more than it delivers at the same time, so that no claimed message waits for another one.
//! 2. After a claim that took all that it could, or a delivery that may have let a later message of its key go, the next
//!    claim follows at once; otherwise after [`poll`](RelayBuilder::poll), jittered.
//! 3. After an error of the store it claims less and less often, at least twice a minute. It never ends by itself.
//! 4. Now and then it deletes what was delivered and kept for long enough.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tracing::instrument::WithSubscriber;

use super::{
    attempt::{Claimed, Shared},
    delivery::Deliver,
};
use crate::{
    backoff::{Backoff, jittered},
    engine::Idempotency,
    observe::{DeliveryResult, StoreOperation},
    policy::LONGEST,
    store::{StoreError, Token, outbox::MessageClaim},
};

/// The longest time until the store is asked again after errors.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Between two deletions of delivered messages.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// How many messages one deletion takes.
const PURGE_BATCH: usize = 500;
/// How long a claim waits for further deliveries that end at the same time.
const GATHER: Duration = Duration::from_millis(2);

/// Delivers the messages of an [outbox](super) until it is stopped or dropped.
#[derive(Debug)]
pub struct Relay {
    /// Dropping it cuts the deliveries off.
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
    counts: Arc<Counts>,
}

/// Settings of a [`Relay`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct RelayBuilder {
    settings: Settings,
    concurrency: usize,
    poll: Duration,
    claim_for: Duration,
}

/// What attempts need of the settings.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) time_out: Duration,
    pub(super) max_attempts: u32,
    pub(super) keep_delivered: Duration,
    first_pause: Duration,
    longest_pause: Duration,
}

/// How far the end of a relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Runs,
    /// Nothing more is claimed.
    Ends,
    /// What is being delivered is given back.
    Cut,
}

#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
    dead: AtomicU64,
    late: AtomicU64,
}

/// What a relay has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relayed {
    /// Messages that were delivered and marked.
    pub delivered: u64,
    /// Attempts after which the message is tried again, those that a stop cut off included.
    pub failed: u64,
    /// Messages that are dead.
    pub dead: u64,
    /// Attempts whose mark came after their claim had ended, or was not acknowledged: such messages are delivered again.
    pub late: u64,
}

/// Why a relay was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotStarted {
    /// The engine's store has no outbox: the SQL stores have one.
    NoOutbox {
        /// The name of the store.
        store: &'static str,
    },
    /// There is no tokio runtime, and the engine was not given one.
    NoRuntime,
}

impl Relay {
    /// The default settings.
    pub fn builder() -> RelayBuilder {
        let seconds = Duration::from_secs;
        RelayBuilder {
            settings: Settings {
                time_out: seconds(10),
                max_attempts: 100,
                keep_delivered: seconds(24 * 60 * 60),
                first_pause: seconds(1),
                longest_pause: seconds(15 * 60),
            },
            concurrency: 16,
            poll: Duration::from_millis(500),
            claim_for: seconds(30),
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn relayed(&self) -> Relayed {
        self.counts.read()
    }

    /// Claims nothing more, waits until the deadline for what is being delivered, and gives the rest back: others may
    /// deliver it at once. Returns what the relay has done in all.
    ///
    /// It ends within the deadline and the engine's store time-out, or when the claims end.
    ///
    /// # Cancellation
    ///
    /// If this future is dropped, the relay is too: what is being delivered is cut off and given back.
    pub async fn stop(mut self, deadline: Duration) -> Relayed {
        self.phase.send_replace(Phase::Ends);
        if timeout(deadline.min(LONGEST), &mut self.task)
            .await
            .is_err()
        {
            self.phase.send_replace(Phase::Cut);
            // An error means that the runtime ended; so has the task.
            let _ended = (&mut self.task).await;
        }
        self.counts.read()
    }
}

/// Times of more than a hundred years are taken as that.
impl RelayBuilder {
    /// The most messages that are delivered at the same time. 16 unless set; at least 1.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.concurrency = messages.max(1);
        self
    }

    /// The time between two looks for messages when there were none. 500 ms unless set, jittered by half. It is the delay of
    /// a message on an idle relay; a look costs one statement, which an index answers.
    pub fn poll(mut self, period: Duration) -> Self {
        self.poll = period.clamp(Duration::from_millis(1), LONGEST);
        self
    }

    /// How long one delivery may take. 10 seconds unless set. It is dropped then and tried again.
    pub fn time_out(mut self, limit: Duration) -> Self {
        self.settings.time_out = limit.min(LONGEST);
        self
    }

    /// How long a claim lasts: the time after which others deliver what a relay had claimed that died. 30 seconds unless
    /// set. A delivery is dropped at its end too, so it should be longer than the [time-out](Self::time_out) by several
    /// times the engine's store time-out, in which deliveries are marked.
    pub fn claim_for(mut self, time: Duration) -> Self {
        self.claim_for = time.min(LONGEST);
        self
    }

    /// How often a delivery is tried before the message is dead. 100 unless set, which with the default pauses is about a
    /// day; at least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts = attempts.max(1);
        self
    }

    /// The pauses between the attempts of one message: `first` after the first, then twice as long each time, up to
    /// `longest`; jittered between half of that and all. 1 second and 15 minutes unless set.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.first_pause = first.min(LONGEST);
        self.settings.longest_pause = longest.min(LONGEST);
        self
    }

    /// How long delivered messages are kept, for people who look for them. 24 hours unless set.
    pub fn keep_delivered(mut self, time: Duration) -> Self {
        self.settings.keep_delivered = time.min(LONGEST);
        self
    }

    /// Starts a relay over the outbox of this engine's store, on the runtime that the engine was given, or else on the
    /// current one.
    ///
    /// # Errors
    ///
    /// If the store has no outbox, or there is no runtime. A table that is missing is found later, and logged.
    pub fn start(self, engine: &Idempotency, deliver: impl Deliver) -> Result<Relay, NotStarted> {
        let services = Arc::clone(engine.services());
        let store = services.store.store();
        if store.outbox().is_none() {
            let store = store.name();
            return Err(NotStarted::NoOutbox { store });
        }
        let runtime = engine.runtime().ok_or(NotStarted::NoRuntime)?;
        let (phase, seen) = watch::channel(Phase::Runs);
        let counts = Arc::<Counts>::default();
        let task = Task {
            shared: Arc::new(Shared {
                services,
                deliver,
                settings: self.settings,
            }),
            concurrency: self.concurrency,
            poll: self.poll,
            claim_for: self.claim_for,
            phase: seen,
            counts: Arc::clone(&counts),
            attempts: JoinSet::new(),
        };
        let task = runtime.spawn(task.run().with_current_subscriber());
        Ok(Relay {
            phase,
            task,
            counts,
        })
    }
}

impl Settings {
    /// How long to wait after this attempt failed.
    pub(super) fn pause(&self, attempt: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1).min(31));
        let pause = self.first_pause.saturating_mul(doubled);
        let pause = pause.min(self.longest_pause);
        pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }
}

/// The task of a relay.
struct Task<D> {
    shared: Arc<Shared<D>>,
    concurrency: usize,
    poll: Duration,
    claim_for: Duration,
    phase: watch::Receiver<Phase>,
    counts: Arc<Counts>,
    attempts: JoinSet<DeliveryResult>,
}

impl<D: Deliver> Task<D> {
    async fn run(mut self) {
        let mut rest = Backoff::new(self.poll, LONGEST_REST.max(self.poll));
        let mut next_claim = Instant::now();
        // Spreads the deletions of processes that start together.
        let mut next_purge = Instant::now() + PURGE_EVERY.mul_f64(rand::random());
        while *self.phase.borrow() == Phase::Runs {
            let room = self.concurrency - self.attempts.len();
            tokio::select! {
                // An error means that the relay was dropped.
                changed = self.phase.changed() => if changed.is_err() { break },
                Some(attempted) = self.attempts.join_next() => {
                    self.counts.add(attempted.ok());
                    next_claim = next_claim.min(Instant::now() + GATHER);
                }
                () = sleep_until(next_claim), if room > 0 => {
                    next_claim = match self.claim(room).await {
                        Ok(claimed) => {
                            rest = Backoff::new(self.poll, LONGEST_REST.max(self.poll));
                            let all = claimed == room;
                            Instant::now() + if all { Duration::ZERO } else { jittered(self.poll) }
                        }
                        Err(error) => {
                            let error = &error as &dyn Error;
                            tracing::warn!(error, "no messages could be claimed");
                            Instant::now() + rest.pause()
                        }
                    };
                }
                () = sleep_until(next_purge) => {
                    next_purge = Instant::now() + self.purge().await;
                }
            }
        }
        // Those that are cut off give their messages back.
        while let Some(attempted) = self.attempts.join_next().await {
            self.counts.add(attempted.ok());
        }
    }

    /// Claims messages and starts their deliveries. Returns how many.
    async fn claim(&mut self, room: usize) -> Result<usize, StoreError> {
        let claimed = Claimed {
            token: Token::random(),
            until: Instant::now() + self.claim_for,
        };
        let claim = MessageClaim::new(claimed.token, self.claim_for, room);
        let store = &self.shared.services.store;
        let messages = store.outbox(StoreOperation::Claim, |outbox| outbox.claim(&claim));
        // There was an outbox when the relay started.
        let messages = messages.await.unwrap_or_else(|| Ok(Vec::new()))?;
        let count = messages.len();
        for message in messages {
            let attempt = Arc::clone(&self.shared).attempt(message, claimed, self.phase.clone());
            self.attempts.spawn(attempt.with_current_subscriber());
        }
        Ok(count)
    }

    /// Deletes delivered messages, and says when to do so next.
    async fn purge(&self) -> Duration {
        let store = &self.shared.services.store;
        let purged = store.outbox(StoreOperation::PurgeDelivered, |outbox| {
            outbox.purge_delivered(PURGE_BATCH)
        });
        match purged.await {
            Some(Ok(PURGE_BATCH)) => self.poll,
            Some(Err(error)) => {
                let error = &error as &dyn Error;
                tracing::warn!(error, "delivered messages could not be deleted");
                PURGE_EVERY
            }
            Some(Ok(_)) | None => jittered(PURGE_EVERY),
        }
    }
}

impl Counts {
    /// Counts an attempt; one that panicked is none.
    fn add(&self, result: Option<DeliveryResult>) {
        let count = match result {
            Some(DeliveryResult::Delivered) => &self.delivered,
            Some(DeliveryResult::Retry) => &self.failed,
            Some(DeliveryResult::Dead) => &self.dead,
            Some(DeliveryResult::Late) | None => &self.late,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Relayed {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Relayed {
            delivered: read(&self.delivered),
            failed: read(&self.failed),
            dead: read(&self.dead),
            late: read(&self.late),
        }
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOutbox { store } => write!(
                f,
                "the {store} store has no outbox: use PostgreSQL, MySQL, MariaDB or SQLite"
            ),
            Self::NoRuntime => f.write_str(
                "there is no tokio runtime: start the relay within one, or give one to the engine",
            ),
        }
    }
}

impl Error for NotStarted {}
