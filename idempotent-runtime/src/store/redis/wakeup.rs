//! Waking those who wait in this process when a record changes in another.
//!
//! The scripts publish the key of each record that they end. One connection listens, with back-off when it
//! breaks; what was missed meanwhile is made good by waking everybody. Nothing depends on it but time: who
//! waits looks by itself now and then.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::{StreamExt as _, TryFutureExt as _};
use redis::{Msg, RedisResult};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::source::{Source, within};
use crate::{scope::StoreKey, store::Wake};

/// How often a connection on which nothing happens is tried.
const PING: Duration = Duration::from_secs(10);
/// The first and the longest pause between two attempts to listen.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The engines to wake.
#[derive(Default)]
pub(super) struct Wakes(RwLock<Vec<Wake>>);

impl Wakes {
    pub(super) fn attach(&self, wake: Wake) {
        let mut wakes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        wakes.push(wake);
    }

    fn each(&self, wake: impl Fn(&Wake)) {
        // A copy: what they do is not ours, and must not be done under the lock.
        let wakes = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        wakes.iter().for_each(wake);
    }
}

/// Listens for as long as it is polled.
pub(super) async fn listen(source: Arc<Source>, channel: String, wakes: Arc<Wakes>) {
    let mut pause = BACKOFF.0;
    loop {
        match hear(&source, &channel, &wakes).await {
            Ok(()) => pause = BACKOFF.0,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "not listening to Redis: waiters go by their polling");
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
        // Jittered, so that the processes of a service do not come all at once when the server is back.
        sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
    }
}

/// Listens on one connection until it breaks. An error: it never came to listening.
async fn hear(source: &Source, channel: &str, wakes: &Wakes) -> RedisResult<()> {
    let patience = source.patience();
    let subscribed = async {
        let mut subscription = source.client().await?.get_async_pubsub().await?;
        subscription.subscribe(channel).await?;
        Ok(subscription)
    };
    let subscribed = source.within(subscribed).await?;
    // Whatever was published while nobody listened.
    wakes.each(Wake::all);
    let (mut sink, mut messages) = subscribed.split();
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => announce(&message, wakes),
                None => return Ok(()),
            },
            _ = pings.tick() => {
                if within::<()>(patience.respond, sink.ping::<redis::Value>().map_ok(drop)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn announce(message: &Msg, wakes: &Wakes) {
    match message.get_payload_bytes().try_into() {
        Ok(key) => {
            let key = StoreKey::from_bytes(key);
            wakes.each(|wake| wake.key(&key));
        }
        // Somebody else's, or a later version's.
        Err(_) => wakes.each(Wake::all),
    }
}
