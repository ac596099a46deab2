//! Waking those who wait in this process when a record changes in another.
//!
//! The scripts publish the key of each record that they end. One connection listens, with back-off when it
//! breaks; what was missed meanwhile is made good by waking everybody. In a Cluster it is one to any of the primaries,
//! and to another one when that has no slots any more. Nothing depends on it but time: who waits looks by itself now
//! and then.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::{StreamExt as _, TryFutureExt as _};
use redis::{Msg, RedisResult, aio::PubSub};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    link::Link,
    source::{Patience, Source, within},
};
use crate::{scope::StoreKey, store::wake::Wake};

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
pub(super) async fn listen(link: Link, channel: String, wakes: Arc<Wakes>) {
    let mut pause = BACKOFF.0;
    loop {
        match hear(&link, &channel, &wakes).await {
            Ok(listened) if listened >= BACKOFF.1 => pause = BACKOFF.0,
            // A proxy may let everybody listen, and close at once.
            Ok(_) => pause = (pause * 2).min(BACKOFF.1),
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

/// Listens where there is something to hear, and tells how long it did. An error: it never came to listening.
async fn hear(link: &Link, channel: &str, wakes: &Wakes) -> RedisResult<Duration> {
    let begun;
    match link {
        Link::Server(server) => {
            let subscription = subscribe(server.source(), channel).await?;
            begun = Instant::now();
            follow(subscription, server.source().patience(), wakes, || {}).await;
        }
        Link::Cluster(cluster) => {
            let node = cluster.speaker()?;
            let source = node.server.source();
            let subscribed = subscribe(source, channel).await;
            let subscription = subscribed.inspect_err(|error| cluster.failed(&node, error))?;
            begun = Instant::now();
            let look = || cluster.look_now_and_then();
            let follow = follow(subscription, source.patience(), wakes, look);
            // A node that left the Cluster answers still, and is told nothing.
            tokio::select! {
                () = follow => {}
                () = cluster.without(&node) => {}
            }
        }
    }
    Ok(begun.elapsed())
}

async fn subscribe(source: &Source, channel: &str) -> RedisResult<PubSub> {
    let subscribed = async {
        let mut subscription = source.client().await?.get_async_pubsub().await?;
        subscription.subscribe(channel).await?;
        Ok(subscription)
    };
    source.within(subscribed).await
}

/// Passes on what one connection says, until it breaks. `now_and_then` is called before each time it is tried.
async fn follow(subscription: PubSub, patience: Patience, wakes: &Wakes, now_and_then: impl Fn()) {
    // Whatever was published while nobody listened.
    wakes.each(Wake::all);
    let (mut sink, mut messages) = subscription.split();
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => announce(&message, wakes),
                None => return,
            },
            _ = pings.tick() => {
                now_and_then();
                if within::<()>(patience.respond, sink.ping::<redis::Value>().map_ok(drop)).await.is_err() {
                    return;
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::{
        RedisStore,
        fake::{Fake, slots, until},
    };
    use crate::{
        fingerprint::Fingerprint,
        scope::StoreKey,
        store::{
            Store as _,
            record::{Claim, Write},
            token::Token,
            wake::Wake,
        },
    };

    /// That this node has all slots.
    fn answer(node: &Fake) -> String {
        slots(&[(0, 16_383, &[("127.0.0.1", node.port())])])
    }

    /// A store on a Cluster of this node that listens.
    async fn listening(node: &Fake) -> RedisStore {
        node.says("CLUSTER SLOTS", answer(node));
        let url = format!("redis+cluster://127.0.0.1:{}", node.port());
        let store = RedisStore::connect(url).await.expect("a store");
        store.attach(Wake::new(|_| {}));
        store
    }

    /// A user that may not listen is no sign that the primaries are not what they were.
    #[tokio::test]
    async fn who_may_not_listen_does_not_look_for_other_nodes() {
        for (refusal, looks) in [("NOPERM no permissions", false), ("LOADING it loads", true)] {
            let node = Fake::new().await;
            node.says("SUBSCRIBE", format!("-{refusal}\r\n"));
            let store = listening(&node).await;
            let looked = node.heard("CLUSTER SLOTS").len();
            until("attempts", || node.heard("SUBSCRIBE").len() == 3).await;
            assert_eq!(
                node.heard("CLUSTER SLOTS").len() > looked,
                looks,
                "{refusal}"
            );
            drop(store);
        }
    }

    /// Each time all who wait are woken.
    #[tokio::test]
    async fn a_server_that_ends_what_it_granted_is_asked_less_and_less_often() {
        let node = Fake::new().await;
        node.closes_after("SUBSCRIBE");
        let store = listening(&node).await;
        until("the first", || !node.heard("SUBSCRIBE").is_empty()).await;
        let begun = Instant::now();
        until("four more", || node.heard("SUBSCRIBE").len() == 5).await;
        // 50, 100, 200 and 400 ms at least.
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(700), "{took:?}");
        drop(store);
    }

    /// A node without slots may have left the Cluster, and hears no more of what is published.
    #[tokio::test]
    async fn a_node_that_left_is_not_listened_to() {
        let [old, new] = [Fake::new().await, Fake::new().await];
        let store = listening(&old).await;
        until("the listener", || old.heard("SUBSCRIBE").len() == 1).await;
        assert!(new.heard("SUBSCRIBE").is_empty());

        old.says("CLUSTER SLOTS", answer(&new));
        new.says("CLUSTER SLOTS", answer(&new));
        old.says("EVALSHA", format!("-MOVED 1 127.0.0.1:{}\r\n", new.port()));
        let minute = Duration::from_secs(60);
        let (key, fingerprint) = (
            StoreKey::from_bytes([1; 32]),
            Fingerprint::from_bytes([1; 32]),
        );
        let claim = Claim::new(key, fingerprint, Token::random(), minute, minute);
        assert_eq!(
            store.renew(&claim.held()).await.expect("served"),
            Write::Applied
        );
        until("the listener", || new.heard("SUBSCRIBE").len() == 1).await;
        drop(store);
    }
}
