//! One attempt to deliver one message, from its claim to its mark.
//!
//! 1. It ends before the claim does: what takes longer is dropped. So a message is delivered by two relays at the same time
//!    only if one of them stood still.
//! 2. The mark is fenced by the claim. It is repeated until the claim ends; if it is not acknowledged by then, the message
//!    is delivered again, with the same id.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tracing::Instrument;

use super::{
    delivery::{Deliver, Delivery, DeliveryError, Then},
    message::MessageId,
    relay::{Phase, Settings},
};
use crate::{
    backoff::Backoff,
    catch_unwind::{Panicked, catching},
    engine::core::services::Services,
    observe::{self, DeliveryResult, Stopwatch, StoreOperation},
    policy::LONGEST,
    response::Binding,
    store::{
        StoreError, Token,
        outbox::{Mark, MessageState, StoredMessage},
    },
};

/// The longest error that is stored, in bytes.
const MAX_ERROR: usize = 1_000;

/// What attempts share.
pub(super) struct Shared<D> {
    pub(super) services: Arc<Services>,
    pub(super) deliver: D,
    pub(super) settings: Settings,
}

/// A claim of messages.
#[derive(Clone, Copy)]
pub(super) struct Claimed {
    pub(super) token: Token,
    /// When it ends at the earliest, by this process's clock.
    pub(super) until: Instant,
}

/// How the delivery ended.
enum Ended {
    Delivered,
    Failed(DeliveryError),
    /// The relay stopped, and what the receiver got is not known.
    Cut,
}

impl<D: Deliver> Shared<D> {
    /// Delivers the message and marks it.
    pub(super) async fn attempt(
        self: Arc<Self>,
        message: StoredMessage,
        claimed: Claimed,
        phase: watch::Receiver<Phase>,
    ) -> DeliveryResult {
        let span = observe::delivery_span(&message.topic, &message.id, message.attempt);
        self.attempt_now(message, claimed, phase)
            .instrument(span)
            .await
    }

    async fn attempt_now(
        self: Arc<Self>,
        message: StoredMessage,
        claimed: Claimed,
        phase: watch::Receiver<Phase>,
    ) -> DeliveryResult {
        let (number, topic, attempt) = (message.number, message.topic.clone(), message.attempt);
        let since = Stopwatch::start();
        if Instant::now() >= claimed.until {
            // The process stood still: the message may be another relay's by now.
            observe::delivery(&topic, DeliveryResult::Late, since);
            return DeliveryResult::Late;
        }
        let ended = if attempt > self.settings.max_attempts {
            // None of them came to an end that could be marked.
            Ended::Failed(DeliveryError::dead(format!(
                "none of {} attempts came to an end: did they end their process?",
                attempt - 1
            )))
        } else {
            self.deliver(message, claimed, phase).await
        };
        let (state, error) = self.settle(ended, attempt);
        let result = match state {
            MessageState::Delivered(_) => DeliveryResult::Delivered,
            MessageState::Pending(_) | MessageState::CutOff(_) => DeliveryResult::Retry,
            MessageState::Dead => DeliveryResult::Dead,
        };
        let mark = Mark::new(number, claimed.token, state, error);
        let result = self.mark(&mark, claimed.until, result).await;
        observe::delivery(&topic, result, since);
        result
    }

    async fn deliver(
        &self,
        message: StoredMessage,
        claimed: Claimed,
        mut phase: watch::Receiver<Phase>,
    ) -> Ended {
        let binding = Binding::of_message(&message.id, &message.topic);
        let payload = match self.services.sealer.open_bytes(message.payload, &binding) {
            Ok(payload) => payload,
            // An engine with the right keys may read it.
            Err(error) => return Ended::Failed(DeliveryError::retry(error)),
        };
        let delivery = Delivery {
            id: MessageId::stored(message.id),
            topic: message.topic,
            payload,
            attempt: message.attempt,
            created_at: message.created_at,
        };
        let limit = claimed.until.min(Instant::now() + self.settings.time_out);
        let delivering = catching(async { self.deliver.deliver(delivery).await });
        tokio::select! {
            biased;
            delivered = timeout_at(limit, delivering) => match delivered {
                Ok(Ok(Ok(()))) => Ended::Delivered,
                Ok(Ok(Err(error))) => Ended::Failed(error),
                Ok(Err(Panicked)) => Ended::Failed(DeliveryError::retry("the delivery panicked")),
                Err(elapsed) => Ended::Failed(DeliveryError::retry(elapsed)),
            },
            // An error means that the relay was dropped.
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => Ended::Cut,
        }
    }

    /// What becomes of the message, and why.
    fn settle(&self, ended: Ended, attempt: u32) -> (MessageState, Option<Box<str>>) {
        let DeliveryError { error, then } = match ended {
            Ended::Delivered => {
                return (MessageState::Delivered(self.settings.keep_delivered), None);
            }
            Ended::Cut => {
                let stopped = "the relay was stopped during the delivery";
                // It says nothing of the message, which would die of as many deploys as it has attempts.
                let others = attempt.saturating_sub(1);
                return (MessageState::CutOff(others), Some(stopped.into()));
            }
            Ended::Failed(failed) => failed,
        };
        let state = match then {
            _ if attempt >= self.settings.max_attempts => MessageState::Dead,
            Then::Bury => MessageState::Dead,
            Then::Retry => MessageState::Pending(self.settings.pause(attempt)),
            Then::RetryAfter(time) => {
                MessageState::Pending(time.min(LONGEST).max(self.settings.pause(attempt)))
            }
        };
        let text = chain(&*error);
        if state == MessageState::Dead {
            tracing::error!(error = &*text, "the message is dead: it is not delivered");
        } else {
            tracing::warn!(
                error = &*text,
                ?state,
                "the message could not be delivered yet"
            );
        }
        (state, Some(text.into()))
    }

    /// Marks the message, again and again until the claim ends.
    async fn mark(&self, mark: &Mark, until: Instant, result: DeliveryResult) -> DeliveryResult {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        loop {
            let marked = self
                .services
                .store
                .outbox(StoreOperation::Mark, |outbox| outbox.mark(mark));
            // There was an outbox when the message was claimed.
            let error = match marked.await {
                Some(Ok(true)) => return result,
                Some(Ok(false)) | None => {
                    tracing::warn!(
                        ?result,
                        "the claim has ended and the message is another relay's: it may be delivered twice, with the same id"
                    );
                    return DeliveryResult::Late;
                }
                Some(Err(error)) => error,
            };
            if !error.is_transient() || Instant::now() + backoff.peek() >= until {
                unmarked(&error, result);
                return DeliveryResult::Late;
            }
            sleep(backoff.pause()).await;
        }
    }
}

fn unmarked(error: &StoreError, result: DeliveryResult) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(
        error,
        ?result,
        "the message could not be marked: it is delivered again when its claim has ended, with the same id"
    );
}

/// An error and its sources in one line that every database stores.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text.truncate(text.floor_char_boundary(MAX_ERROR));
    // PostgreSQL stores no zero byte in a text.
    text.replace('\0', " ")
}
