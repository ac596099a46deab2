//! Waking waiters of this process when another process changes a record.
//!
//! The scripts publish the key of each record whose lease they end. One connection listens. When it breaks, it is made
//! again with back-off, and then all waiters are woken, because notifications were missed meanwhile. In a Cluster it
//! leads to any primary, and to another one when that has no slots any more. Only latency depends on it: waiters also
//! poll.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::{StreamExt as _, TryFutureExt as _};
use redis::{Msg, RedisResult, aio::PubSub};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    error::denied,
    link::Link,
    source::{Source, TimeOuts, within},
};
use crate::{scope::StoreKey, store::wake::Wake};

/// How often the connection is pinged.
const PING: Duration = Duration::from_secs(10);
/// The first and the longest pause between two attempts to listen.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The engines to wake.
#[derive(Default)]
pub(super) struct Wakes(RwLock<Vec<Wake>>);

impl Wakes {
    pub(super) fn attach(&self, wake: Wake) {
        let mut wakes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        wakes.retain(|wake| !wake.is_closed());
        wakes.push(wake);
    }

    fn each(&self, wake: impl Fn(&Wake)) {
        // A copy, because the wakes run the engines' code, which must not run under the lock.
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
        match listen_once(&link, &channel, &wakes).await {
            Ok(listened) if listened >= BACKOFF.1 => pause = BACKOFF.0,
            // A proxy may accept the subscription and close the connection at once.
            Ok(_) => pause = (pause * 2).min(BACKOFF.1),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(
                    error,
                    "not listening to Redis: waiters poll until it is possible again"
                );
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
        // Jitter, so that the processes of a service do not all connect at once when the server is back.
        sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
    }
}

/// Listens on one connection until it ends, and returns for how long. An error means that it could not subscribe.
async fn listen_once(link: &Link, channel: &str, wakes: &Wakes) -> RedisResult<Duration> {
    let begun;
    match link {
        Link::Server(server) => {
            let subscription = subscribe(server.source(), channel).await?;
            begun = Instant::now();
            forward(subscription, server.source().time_outs(), wakes, || {}).await;
        }
        Link::Cluster(cluster) => {
            let (node, source) = cluster.node_to_listen_on()?;
            let subscribed = subscribe(&source, channel).await;
            let subscription = subscribed.inspect_err(|error| {
                // A missing permission says nothing about the node.
                if !denied(error) {
                    cluster.compare_soon();
                }
            })?;
            begun = Instant::now();
            let forward = forward(subscription, source.time_outs(), wakes, || {
                cluster.compare_if_due();
            });
            // A node that left the Cluster still answers pings, and receives no more messages.
            tokio::select! {
                () = forward => {}
                () = cluster.until_removed(&node) => {}
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

/// Forwards the messages of one connection until it breaks. Calls `before_ping` before each ping.
async fn forward(subscription: PubSub, time_outs: TimeOuts, wakes: &Wakes, before_ping: impl Fn()) {
    // Earlier messages were missed.
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
                before_ping();
                if within::<()>(time_outs.response, sink.ping::<redis::Value>().map_ok(drop)).await.is_err() {
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
        // A message of another program or of a later version.
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

    /// The slot map in which this node owns all slots.
    fn all_slots(node: &Fake) -> String {
        slots(&[(0, 16_383, &[("127.0.0.1", node.port())])])
    }

    /// A store that listens, on a Cluster of this one node.
    async fn listening(node: &Fake) -> RedisStore {
        node.says("CLUSTER SLOTS", all_slots(node));
        let url = format!("redis+cluster://127.0.0.1:{}", node.port());
        let store = RedisStore::connect(url).await.expect("a store");
        store.attach(Wake::new(|_| {}));
        store
    }

    /// A missing permission does not mean that the topology has changed.
    #[tokio::test]
    async fn a_user_without_permission_to_subscribe_causes_no_topology_refresh() {
        for (refusal, refreshes) in [("NOPERM no permissions", false), ("LOADING it loads", true)] {
            let node = Fake::new().await;
            node.says("SUBSCRIBE", format!("-{refusal}\r\n"));
            let store = listening(&node).await;
            let before = node.heard("CLUSTER SLOTS").len();
            until("attempts", || node.heard("SUBSCRIBE").len() == 3).await;
            assert_eq!(
                node.heard("CLUSTER SLOTS").len() > before,
                refreshes,
                "{refusal}"
            );
            drop(store);
        }
    }

    /// Each subscription wakes all waiters.
    #[tokio::test]
    async fn a_server_that_ends_subscriptions_is_asked_with_back_off() {
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

    /// A node without slots may have left the Cluster, and then receives no more messages.
    #[tokio::test]
    async fn the_listener_moves_away_from_a_node_that_left_the_cluster() {
        let [old, new] = [Fake::new().await, Fake::new().await];
        let store = listening(&old).await;
        until("the listener", || old.heard("SUBSCRIBE").len() == 1).await;
        assert!(new.heard("SUBSCRIBE").is_empty());

        old.says("CLUSTER SLOTS", all_slots(&new));
        new.says("CLUSTER SLOTS", all_slots(&new));
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
